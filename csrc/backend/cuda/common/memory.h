// Owns access to tensor memory: elements of 2, 4 or 8 bytes are converted to and from the type that a kernel computes
// in, and move four at a time where the tensor is aligned. On the device four elements move by ld.global and st.global,
// as an address that went through shared memory would compile to generic accesses.
#pragma once
#include "../../../ops/convert.h"
#include "records.h"

namespace nos::cuda {

NOS_HD uint32_t dtype_of(uint32_t dtypes, int slot) { return dtypes >> (2 * slot) & 3u; }
// The same where there may be codes.
NOS_HD uint32_t any_dtype_of(uint32_t dtypes, int slot) {
  return dtype_of(dtypes, slot) | (dtypes >> (kCodeBits + slot) & 1u) << 2;
}
NOS_HD bool is_code(uint32_t dtype) { return (dtype & 4u) != 0; }
NOS_HD int size_of_dtype(uint32_t d) { return d == kF32 ? 4 : d == kF64 ? 8 : is_code(d) ? 1 : 2; }

#if defined(__CUDA_ARCH__)
NOS_HD void load_quad(const float* p, float* v) {
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "l"(p)
               : "memory");
}
NOS_HD void store_quad(float* p, const float* v) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
               : "memory");
}
NOS_HD void load_quad(const double* p, double* v) {
  asm volatile("ld.global.v2.f64 {%0, %1}, [%2];" : "=d"(v[0]), "=d"(v[1]) : "l"(p) : "memory");
  asm volatile("ld.global.v2.f64 {%0, %1}, [%2];" : "=d"(v[2]), "=d"(v[3]) : "l"(p + 2) : "memory");
}
NOS_HD void store_quad(double* p, const double* v) {
  asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(p), "d"(v[0]), "d"(v[1]) : "memory");
  asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(p + 2), "d"(v[2]), "d"(v[3]) : "memory");
}
NOS_HD void load_quad(const uint16_t* p, uint16_t* v) {
  uint32_t x, y;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(x), "=r"(y) : "l"(p) : "memory");
  v[0] = static_cast<uint16_t>(x), v[1] = static_cast<uint16_t>(x >> 16);
  v[2] = static_cast<uint16_t>(y), v[3] = static_cast<uint16_t>(y >> 16);
}
NOS_HD void store_quad(uint16_t* p, const uint16_t* v) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(v[0] | static_cast<uint32_t>(v[1]) << 16),
               "r"(v[2] | static_cast<uint32_t>(v[3]) << 16)
               : "memory");
}
// Loads two words or four. One instruction of the two is carried out: with a branch, the loads of a slot would wait for
// those of the slot before.
NOS_HD void load_words(const char* p, bool two, float* v) {
  asm volatile(
      "{\n\t.reg .pred two;\n\tsetp.ne.u32 two, %5, 0;\n\t"
      "@two ld.global.v2.f32 {%0, %1}, [%4];\n\t@!two ld.global.v4.f32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
      : "l"(p), "r"(static_cast<uint32_t>(two))
      : "memory");
}
// Has the L2 cache fetch so many bytes from p on, both multiples of 16, since they will be read soon.
NOS_HD void prefetch([[maybe_unused]] const char* p, [[maybe_unused]] int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}
NOS_HD float half_to_f32(uint16_t h) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(h));
  return r;
}
NOS_HD uint16_t f32_to_half(float x) {
  uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
#if __CUDA_ARCH__ >= 800
NOS_HD uint16_t f32_to_brain(float x) {
  uint16_t r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
#else
NOS_HD uint16_t f32_to_brain(float x) { return math::f32_to_bf16(x); }
#endif
#else
// A device faults on a misaligned access, so the host build does, too.
template <class S>
NOS_HD void load_quad(const S* p, S* v) {
  if (reinterpret_cast<uintptr_t>(p) % (sizeof(S) == 2 ? 8 : 16)) __builtin_trap();
  for (int i = 0; i < 4; ++i) v[i] = p[i];
}
template <class S>
NOS_HD void store_quad(S* p, const S* v) {
  if (reinterpret_cast<uintptr_t>(p) % (sizeof(S) == 2 ? 8 : 16)) __builtin_trap();
  for (int i = 0; i < 4; ++i) p[i] = v[i];
}
NOS_HD void load_words(const char* p, bool two, float* v) {
  if (reinterpret_cast<uintptr_t>(p) % (two ? 8 : 16)) __builtin_trap();
  __builtin_memcpy(v, p, two ? 8 : 16);
}
NOS_HD void prefetch(const char* p, int bytes) {
  if (reinterpret_cast<uintptr_t>(p) % 16 || bytes % 16) __builtin_trap();
}
NOS_HD float half_to_f32(uint16_t h) { return math::f16_to_f32(h); }
NOS_HD uint16_t f32_to_half(float x) { return math::f32_to_f16(x); }
NOS_HD uint16_t f32_to_brain(float x) { return math::f32_to_bf16(x); }
#endif

// The bits of the number are tested one by one, as comparisons would be compiled to a jump table.
static_assert(kF32 == 0 && kF64 == 1 && kBF16 == 2 && kF16 == 3 && kI8 == 4 && kU8 == 5);
NOS_HD bool is_half(uint32_t dtype) { return (dtype & 2u) != 0; }
NOS_HD float half_to(uint32_t dtype, uint16_t h) { return dtype & 1u ? half_to_f32(h) : math::bf16_to_f32(h); }
NOS_HD uint16_t to_half(uint32_t dtype, float x) { return dtype & 1u ? f32_to_half(x) : f32_to_brain(x); }

// Tells the device compiler that an address is in global memory, as generic accesses are slower.
NOS_HD char* global(char* p) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(p));
#endif
  return p;
}

// Mixed says whether slots may have 2-byte storage; otherwise every slot is stored in the compute type T. Element i is
// i elements past `base`. For fetch4, load4 and store4 it is the first of four elements, which together are aligned.
//
// fetch4 leaves four elements as they are in memory, those of 2 bytes in v[0] and v[1]; widen4 makes numbers of them.
// So the loads of many slots are under way together before the first of them has to be there.
template <class T, bool Mixed>
NOS_HD void fetch4(const char* base, uint32_t dtype, int64_t i, T* v) {
  if constexpr (Mixed && sizeof(T) == 4)
    load_words(base + (i << (is_half(dtype) ? 1 : 2)), is_half(dtype), v);
  else
    load_quad(reinterpret_cast<const T*>(base) + i, v);
}
template <class T, bool Mixed>
NOS_HD void widen4(uint32_t dtype, T* v) {
  if constexpr (Mixed && sizeof(T) == 4) {
    if (!is_half(dtype)) return;
    const auto high = bits_as<uint32_t>(v[1]);  // in this order no value moves out of the way of another
    v[3] = half_to(dtype, static_cast<uint16_t>(high >> 16));
    v[2] = half_to(dtype, static_cast<uint16_t>(high));
    const auto low = bits_as<uint32_t>(v[0]);
    v[1] = half_to(dtype, static_cast<uint16_t>(low >> 16));
    v[0] = half_to(dtype, static_cast<uint16_t>(low));
  }
}
template <class T, bool Mixed>
NOS_HD void load4(const char* base, uint32_t dtype, int64_t i, T* v) {
  fetch4<T, Mixed>(base, dtype, i, v);
  widen4<T, Mixed>(dtype, v);
}
template <class T, bool Mixed>
NOS_HD void store4(char* base, uint32_t dtype, int64_t i, const T* v) {
  if constexpr (Mixed) {
    if (is_half(dtype)) {
      uint16_t h[4];
      for (int e = 0; e < 4; ++e) h[e] = to_half(dtype, v[e]);
      store_quad(reinterpret_cast<uint16_t*>(base) + i, h);
      return;
    }
  }
  store_quad(reinterpret_cast<T*>(base) + i, v);
}
template <class T, bool Mixed>
NOS_HD T load1(const char* base, uint32_t dtype, int64_t i) {
  if constexpr (Mixed) {
    if (is_half(dtype)) return half_to(dtype, reinterpret_cast<const uint16_t*>(base)[i]);
  }
  return reinterpret_cast<const T*>(base)[i];
}
template <class T, bool Mixed>
NOS_HD void store1(char* base, uint32_t dtype, int64_t i, T v) {
  if constexpr (Mixed) {
    if (is_half(dtype)) {
      reinterpret_cast<uint16_t*>(base)[i] = to_half(dtype, v);
      return;
    }
  }
  reinterpret_cast<T*>(base)[i] = v;
}

}  // namespace nos::cuda
