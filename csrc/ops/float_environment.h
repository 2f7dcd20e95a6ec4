// Owns FloatEnvironment: the rounding and subnormal handling that the engine's bits are promised for.
#pragma once
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif
#include <cstdint>

namespace nos {

// While one lives, this thread rounds to nearest, keeps subnormals, and traps nothing; then the caller's setting is
// back. A caller may have changed it: fesetround, torch.set_flush_denormal, or a library built with -ffast-math. Each
// thread has its own. (Exception flags are raised as by any arithmetic.)
//
// A compiler may move arithmetic over the change of a setting that it does not model: keep the arithmetic in a function
// of its own (NOS_NOINLINE) that is called while the object lives.
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
