// Owns the block kernels of reductions, which make one number of each unit of kFoldUnit elements. It is a part of
// kernels.cc, and has internal linkage as all of that.
#pragma once
#include <type_traits>

#include "../../../ops/math.h"
#include "../kernels.h"
#include "inline.h"

namespace nos::cpu {
namespace {

// One unit of a reduction is a balanced tree, in which the first step adds element i + 128 to element i and the last
// one the two that are left. What is missing of a unit is 0.
enum class FoldTerm { value, square, product, magnitude };  // of an element

template <FoldTerm F>
NOS_INLINE double join(double a, double b) {
  if constexpr (F == FoldTerm::magnitude)
    return (a >= b) | (a != a) ? a : b;
  else
    return a + b;
}

template <FoldTerm F, class T>
NOS_INLINE double term(T a, T b) {
  const double x = static_cast<double>(a);
  if constexpr (F == FoldTerm::square)
    return x * x;
  else if constexpr (F == FoldTerm::product)
    return x * static_cast<double>(b);
  else if constexpr (F == FoldTerm::magnitude)
    return math::abs<double>(x);
  else
    return x;
}

constexpr int64_t kSums = 64;  // of a unit, four elements each: with fewer, memory is read in jumps that are slow

// term(a, b) + term(c, d)
template <FoldTerm F, class T>
NOS_INLINE double pair(T a, T b, T c, T d) {
#ifdef __FP_FAST_FMA
  // Products of floats are exact in double, so this rounds no differently.
  if constexpr ((F == FoldTerm::square || F == FoldTerm::product) && std::is_same_v<T, float>)
    return __builtin_fma(static_cast<double>(a), static_cast<double>(F == FoldTerm::square ? a : b), term<F>(c, d));
#endif
  return join<F>(term<F>(a, b), term<F>(c, d));
}

// Adds up four rows of kSums elements.
template <FoldTerm F, class T>
NOS_INLINE double add_rows(const T* const (&a)[4], const T* const (&b)[4]) {
  double sum[kSums];
  for (int64_t i = 0; i < kSums; ++i)
    sum[i] = join<F>(pair<F>(a[0][i], b[0][i], a[2][i], b[2][i]), pair<F>(a[1][i], b[1][i], a[3][i], b[3][i]));
#pragma GCC unroll 8
  for (int64_t half = kSums / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) sum[i] = join<F>(sum[i], sum[i + half]);
  return sum[0];
}

template <FoldTerm F, class T>
NOS_INLINE double whole_unit(const T* a, const T* b) {
  return add_rows<F, T>({a, a + kSums, a + 2 * kSums, a + 3 * kSums}, {b, b + kSums, b + 2 * kSums, b + 3 * kSums});
}

// The same of n elements, fewer than a unit, with zeros for what is missing.
template <FoldTerm F, class T>
NOS_INLINE double part_of_unit(const T* a, const T* b, int64_t n) {
  static constexpr T kZeros[kSums] = {};
  T rest[2][kSums];
  const auto row = [&](T* room, const T* x, int64_t first) -> const T* {
    if (first >= n) return kZeros;
    if (first + kSums <= n) return x + first;
    for (int64_t i = 0; i < kSums; ++i) room[i] = first + i < n ? x[first + i] : T(0);
    return room;
  };
  const T *rows[4], *others[4];
  for (int64_t k = 0; k < 4; ++k) {
    rows[k] = row(rest[0], a, k * kSums);
    others[k] = F == FoldTerm::product ? row(rest[1], b, k * kSums) : rows[k];
  }
  return add_rows<F, T>(rows, others);
}
static_assert(kFoldUnit == 4 * kSums);

template <FoldTerm F, class T>
void fold_units(double* dst, const T* a, const T* b, int64_t n) {
  for (; n >= kFoldUnit; n -= kFoldUnit, a += kFoldUnit, b += kFoldUnit) *dst++ = whole_unit<F>(a, b);
  if (n) *dst = part_of_unit<F>(a, b, n);
}

template <class T>
void fold_sum(double* dst, const T* a, const T* b, int64_t n) {
  fold_units<FoldTerm::value>(dst, a, b, n);
}
template <class T>
void fold_dot(double* dst, const T* a, const T* b, int64_t n) {
  a == b ? fold_units<FoldTerm::square>(dst, a, b, n) : fold_units<FoldTerm::product>(dst, a, b, n);
}
template <class T>
void fold_max_abs(double* dst, const T* a, const T* b, int64_t n) {
  fold_units<FoldTerm::magnitude>(dst, a, b, n);
}

}  // namespace
}  // namespace nos::cpu
