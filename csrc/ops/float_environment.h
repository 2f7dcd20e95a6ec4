// Owns FloatEnvironment, which sets the rounding and the handling of subnormals for which the engine promises its bits.
#pragma once
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif
#include <cstdint>

namespace nos {

// While such an object lives, its thread rounds to nearest, keeps subnormals, and does not trap. Afterwards the
// caller's setting is back. A caller may have changed it by fesetround, by torch.set_flush_denormal, or by loading a
// library built with -ffast-math, and every thread has a setting of its own. (Exception flags are raised as by any
// arithmetic.)
//
// A compiler does not model the change of the setting and may move arithmetic across it. So put the arithmetic into a
// function of its own (NOS_NOINLINE), and call that while the object lives.
class FloatEnvironment {
 public:
  FloatEnvironment() : callers_(get()) {
    if ((callers_ & kControl) != kEngine) set((callers_ & ~kControl) | kEngine);
  }
  ~FloatEnvironment() {
    if ((callers_ & kControl) != kEngine) set((get() & ~kControl) | (callers_ & kControl));
  }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
#if defined(__SSE2__)
  using Word = uint32_t;
  static constexpr Word kControl = 0xffc0;  // all of MXCSR but the flags
  static constexpr Word kEngine = 0x1f80;   // all exceptions masked, round to nearest, no FTZ, no DAZ
  static Word get() { return _mm_getcsr(); }
  static void set(Word w) { _mm_setcsr(w); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kControl = 0x07ff9f07;  // FPCR: AHP, DN, FZ, RMode, FZ16, traps, AH, FIZ, NEP
  static constexpr Word kEngine = 0;
  static Word get() {
    Word w;
    __asm__ volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void set(Word w) { __asm__ volatile("msr fpcr, %0" : : "r"(w) : "memory"); }
#else
#error "say here how this processor's floating-point environment is read and set"
#endif
  const Word callers_;
};

#define NOS_NOINLINE __attribute__((noinline))

}  // namespace nos
