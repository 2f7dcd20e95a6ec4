// Owns the few things that g++ and nvcc spell differently: NOS_HD, bit casts, explicit fused multiply-adds, IEEE
// division.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define NOS_HD __host__ __device__ __forceinline__
#else
#define NOS_HD inline __attribute__((always_inline))
#endif

namespace nos {

// Same bits as another type of the same size.
template <class To, class From>
NOS_HD To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, x);
}

// a * b + c with one rounding. This and what calls it are the only fused operations anywhere, as contraction is off in
// every build.
NOS_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}
NOS_HD double fused(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

// a * b + c where the product is exact in fp32. Then fusing does not change the bits, so it is left to the machine.
NOS_HD float exact_product_plus(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FP_FAST_FMAF)
  return fused(a, b, c);
#else
  return a * b + c;
#endif
}

// These are correctly rounded, whatever -prec-div and -prec-sqrt say.
NOS_HD float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}
NOS_HD double divide(double a, double b) { return a / b; }
NOS_HD float square_root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}
NOS_HD double square_root(double a) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(a);
#else
  return __builtin_sqrt(a);
#endif
}

}  // namespace nos
