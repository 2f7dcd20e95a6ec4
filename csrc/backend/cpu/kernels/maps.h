// Owns the block kernels of element-wise ops, and those that copy, fill and scale. It is a part of kernels.cc, and has
// internal linkage as all of that.
#pragma once
#include <type_traits>

#include "../../../ops/math.h"
#include "../kernels.h"
#include "inline.h"

namespace nos::cpu {
namespace {

// One functor per element-wise op, so that a kernel can be a template over it.
#define NOS_FUNCTOR_any(id)                   \
  struct fn_##id {                            \
    template <class T, class... Rest>         \
    NOS_INLINE T run(T first, Rest... rest) { \
      return math::id<T>(first, rest...);     \
    }                                         \
  };
#define NOS_FUNCTOR_scalar(id)
#define NOS_FUNCTOR_random(id)
#define NOS_FUNCTOR_reduce(id)
#define NOS_FUNCTOR_global(id)
#define NOS_OP(id, arity, domain, ...) NOS_FUNCTOR_##domain(id)
#include "../../../ops/ops.def"
#undef NOS_OP

// Bit k of S says that operand k is one scalar. `ivdep` is right since dst is an operand itself or does not overlap it.
template <class T, class F, int S>
void map1(T* dst, const T* a, const T*, const T*, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(a[i]);
}

template <class T, class F, int S>
void map2(T* dst, const T* a, const T* b, const T*, int64_t n) {
  [[maybe_unused]] const T as = *a, bs = *b;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(S & 1 ? as : a[i], S & 2 ? bs : b[i]);
}

// Like map2, but spreads the scalar over a short array first. pow needs this: GCC moves the tests of a loop-invariant
// operand out of the loop as scalar truth values, and then does not vectorise the selects that use them.
template <class T, class F, int S>
void map2_spread(T* dst, const T* a, const T* b, const T*, int64_t n) {
  constexpr int64_t kSpread = 128;
  T spread[kSpread];
  for (int64_t i = 0; i < kSpread; ++i) spread[i] = S & 1 ? *a : *b;
  for (int64_t i = 0; i < n; i += kSpread) {
    const int64_t count = n - i < kSpread ? n - i : kSpread;
    map2<T, F, 0>(dst + i, S & 1 ? spread : a + i, S & 2 ? spread : b + i, nullptr, count);
  }
}

template <class T, class F, int S>
void map3(T* dst, const T* a, const T* b, const T* c, int64_t n) {
  [[maybe_unused]] const T as = *a, bs = *b, cs = *c;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(S & 1 ? as : a[i], S & 2 ? bs : b[i], S & 4 ? cs : c[i]);
}

template <class T, class F, int Arity>
constexpr void add_maps(MapFn<T> (&row)[8]) {
  if constexpr (Arity == 1) {
    row[0] = map1<T, F, 0>;
  } else if constexpr (std::is_same_v<F, fn_pow>) {
    row[0] = map2<T, F, 0>, row[1] = map2_spread<T, F, 1>, row[2] = map2_spread<T, F, 2>;
  } else if constexpr (Arity == 2) {
    row[0] = map2<T, F, 0>, row[1] = map2<T, F, 1>, row[2] = map2<T, F, 2>;
  } else {
    row[0] = map3<T, F, 0>, row[1] = map3<T, F, 1>, row[2] = map3<T, F, 2>, row[3] = map3<T, F, 3>;
    row[4] = map3<T, F, 4>, row[5] = map3<T, F, 5>, row[6] = map3<T, F, 6>;
  }
}

template <class T>
void copy(T* dst, const T* src, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i];
}

template <class T>
void fill(T* dst, T value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = value;
}

template <class T>
void scale(T* dst, const T* src, T factor, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i] * factor;
}

}  // namespace
}  // namespace nos::cpu
