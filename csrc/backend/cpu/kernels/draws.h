// Owns the block kernels of random ops. It is a part of kernels.cc, and has internal linkage as all of that.
#pragma once
#include "../../../ops/philox.h"
#include "../kernels.h"
#include "inline.h"

namespace nos::cpu {
namespace {

// Draws are made in groups of four. The groups of one block are independent, so the outer loop vectorises over groups.
constexpr int64_t kDrawGroups = 32;

template <class Draw, class Value>
NOS_INLINE void for_draws(DrawKey key, int64_t n, const Draw& draw, Value* buffer) {
  for (int64_t first = 0; first < n; first += 4 * kDrawGroups) {
    const uint64_t q0 = (key.element + static_cast<uint64_t>(first)) >> 2;
    for (int64_t g = 0; g < kDrawGroups; ++g) {
      const philox::Words w =
          philox::element_words(key.seed, key.step, key.tensor, key.site, q0 + static_cast<uint64_t>(g));
      draw.fill(w, buffer + 4 * g);
    }
    const int64_t stop = n - first < 4 * kDrawGroups ? n - first : 4 * kDrawGroups;
    for (int64_t i = 0; i < stop; ++i) draw.apply(first + i, buffer[i]);
  }
}

template <class T>
void drop(T* dst, const T* a, T prob, DrawKey key, int64_t n) {
  struct {
    T* dst;
    const T* a;
    T prob;
    NOS_HD void fill(const philox::Words& w, float* out) const { philox::uniform4(w, out); }
    NOS_HD void apply(int64_t i, float u) const { dst[i] = static_cast<T>(u) < prob ? T(0) : a[i]; }
  } draw{dst, a, prob};
  float buffer[4 * kDrawGroups];
  for_draws(key, n, draw, buffer);
}

template <class T>
void normal(T* dst, const T*, T std, DrawKey key, int64_t n) {
  struct {
    T* dst;
    T std;
    NOS_HD void fill(const philox::Words& w, float* out) const { philox::normal4(w, out); }
    NOS_HD void apply(int64_t i, float z) const { dst[i] = static_cast<T>(z) * std; }
  } draw{dst, std};
  float buffer[4 * kDrawGroups];
  for_draws(key, n, draw, buffer);
}

}  // namespace
}  // namespace nos::cpu
