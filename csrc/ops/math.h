// Owns the scalar functions: nos::math::id<T>(T...) for every op of ops.def that is not random, with T = float or
// double, for host and device. docs/numerics.md has the error bounds and the edge cases (NaN, infinities, signed zeros,
// subnormals).
//
// The float functions give the same bits on every back-end. They have no branch, no library call and nothing else that
// stops auto-vectorisation. The host build needs -ffp-contract=off -fno-math-errno -fno-trapping-math; the device build
// needs --fmad=false and no --use_fast_math. The double functions call the C library.
#pragma once
#include <type_traits>

#include "convert.h"
#include "math_f32.h"
#include "portable.h"

namespace nos::math {

template <class T>
inline constexpr bool is_f32 = std::is_same_v<T, float>;
template <class T>
using bits_of = std::conditional_t<is_f32<T>, uint32_t, uint64_t>;

// ---- arithmetic -----------------------------------------------------------------------------------------------------
template <class T>
NOS_HD T add(T a, T b) {
  return a + b;
}
template <class T>
NOS_HD T sub(T a, T b) {
  return a - b;
}
template <class T>
NOS_HD T mul(T a, T b) {
  return a * b;
}
template <class T>
NOS_HD T div(T a, T b) {
  return divide(a, b);
}
template <class T>
NOS_HD T fma(T a, T b, T c) {
  return fused(a, b, c);
}
template <class T>
NOS_HD T neg(T a) {
  return -a;
}
template <class T>
NOS_HD T square(T a) {
  return a * a;
}
template <class T>
NOS_HD T sqrt(T a) {
  return square_root(a);
}
template <class T>
NOS_HD T rsqrt(T a) {
  if constexpr (is_f32<T>)
    return f32::rsqrt(a);
  else
    return divide(T(1), square_root(a));
}
template <class T>
NOS_HD T abs(T a) {
  if constexpr (is_f32<T>)
    return __builtin_fabsf(a);
  else
    return __builtin_fabs(a);
}
template <class T>
NOS_HD T floor(T a) {
  if constexpr (is_f32<T>)
    return __builtin_floorf(a);
  else
    return __builtin_floor(a);
}

// ---- order ----------------------------------------------------------------------------------------------------------
// The minimum and maximum of IEEE 754-2019: a NaN wins and -0 < +0, so both commute. A select alone returns its second
// operand for a NaN and for zeros of opposite sign, so the two orders of operands differ in these cases only. In both,
// OR gives the minimum: it keeps a NaN a NaN and makes zeros of opposite sign -0. For the maximum, subtracting the
// difference in bits turns that -0 into +0 (otherwise it computes NaN - x or x - 0). PTX's min.NaN and max.NaN are
// these operations.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define NOS_PTX_ORDER(name)                                      \
  if constexpr (is_f32<T>) {                                     \
    float r;                                                     \
    asm(name ".NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); \
    return r;                                                    \
  }
#else
#define NOS_PTX_ORDER(name)
#endif
template <class T>
NOS_HD T min(T a, T b) {
  NOS_PTX_ORDER("min")
  const T p = a < b ? a : b;
  const T q = b < a ? b : a;
  return bits_as<T>(bits_as<bits_of<T>>(p) | bits_as<bits_of<T>>(q));
}
template <class T>
NOS_HD T max(T a, T b) {
  NOS_PTX_ORDER("max")
  const T p = a > b ? a : b;
  const T q = b > a ? b : a;
  const bits_of<T> u = bits_as<bits_of<T>>(p), v = bits_as<bits_of<T>>(q);
  return bits_as<T>(u | v) - bits_as<T>(u ^ v);
}
#undef NOS_PTX_ORDER
template <class T>
NOS_HD T clip(T a, T lo, T hi) {
  return min(max(a, lo), hi);
}

template <class T>
NOS_HD T lt(T a, T b) {
  return a < b ? T(1) : T(0);
}
template <class T>
NOS_HD T le(T a, T b) {
  return a <= b ? T(1) : T(0);
}
template <class T>
NOS_HD T gt(T a, T b) {
  return a > b ? T(1) : T(0);
}
template <class T>
NOS_HD T ge(T a, T b) {
  return a >= b ? T(1) : T(0);
}
template <class T>
NOS_HD T eq(T a, T b) {
  return a == b ? T(1) : T(0);
}
template <class T>
NOS_HD T ne(T a, T b) {
  return a != b ? T(1) : T(0);
}
template <class T>
NOS_HD T where(T a, T b, T c) {
  return a != T(0) ? b : c;
}  // a NaN counts as true
template <class T>
NOS_HD T sign(T a) {
  T s;
  if constexpr (is_f32<T>)
    s = __builtin_copysignf(1.0f, a);
  else
    s = __builtin_copysign(1.0, a);
  s = a == T(0) ? T(0) : s;
  s = a != a ? a : s;
  return s;
}

// ---- transcendental -------------------------------------------------------------------------------------------------
template <class T>
NOS_HD T exp(T a) {
  if constexpr (is_f32<T>)
    return f32::exp(a);
  else
    return ::exp(a);
}
template <class T>
NOS_HD T log(T a) {
  if constexpr (is_f32<T>)
    return f32::log(a);
  else
    return ::log(a);
}
template <class T>
NOS_HD T tanh(T a) {
  if constexpr (is_f32<T>)
    return f32::tanh(a);
  else
    return ::tanh(a);
}
template <class T>
NOS_HD T pow(T a, T b) {
  if constexpr (is_f32<T>)
    return f32::pow(a, b);
  else
    return ::pow(a, b);
}

// ---- scalars only: double -------------------------------------------------------------------------------------------
template <class T>
NOS_HD T cos(T a) {
  static_assert(!is_f32<T>, "scalars are double");
  return ::cos(a);
}
template <class T>
NOS_HD T sin(T a) {
  static_assert(!is_f32<T>, "scalars are double");
  return ::sin(a);
}
// The result has the sign of b, as that of Python's % has. It is NaN for b = 0 and for an infinite a.
template <class T>
NOS_HD T mod(T a, T b) {
  static_assert(!is_f32<T>, "scalars are double");
  const T r = ::fmod(a, b);
  if (r == T(0)) return ::copysign(T(0), b);
  return (r < T(0)) != (b < T(0)) ? r + b : r;
}

}  // namespace nos::math
