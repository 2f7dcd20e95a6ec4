// Between rows of numbers, one per example, and lists of lanes: squares of both are each other's transpose.
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

NOS_CHILD_INLINE M load_anywhere(const float* p) {
  M out;
  __builtin_memcpy(&out, p, sizeof out);
  return out;
}
NOS_CHILD_INLINE void store_anywhere(float* p, M a) { __builtin_memcpy(p, &a, sizeof a); }

// In log2(kWidth) rounds of zips, each of which turns the bits (row, column) of an element's place by one to the left.
NOS_CHILD_INLINE void transpose(M* square) {
#pragma GCC unroll 4
  for (int round = 1; round < kWidth; round *= 2) {
    M zipped[kWidth];
#pragma GCC unroll 8
    for (int k = 0; k < kWidth / 2; ++k) {
      zipped[2 * k] = zip_low(square[k], square[k + kWidth / 2]);
      zipped[2 * k + 1] = zip_high(square[k], square[k + kWidth / 2]);
    }
#pragma GCC unroll 16
    for (int k = 0; k < kWidth; ++k) square[k] = zipped[k];
  }
}

}  // namespace

void gather(const float* const* rows, int count, const ptrdiff_t* places, int lanes, float* to) {
  for (int first = 0; first < lanes; first += kWidth) {
    int n = 0;
    for (; count - n >= kWidth; n += kWidth) {
      M square[kWidth];
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; ++k) square[k] = load_anywhere(rows[first + k] + n);
      transpose(square);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; ++k) store(to + places[n + k] + first, square[k]);
    }
    for (; n < count; ++n)
      for (int k = 0; k < kWidth; ++k) to[places[n] + first + k] = rows[first + k][n];
  }
}

void scatter_add(const float* from, const ptrdiff_t* places, int count, int examples, float* const* rows) {
  for (int first = 0; first < examples; first += kWidth) {
    const int used = examples - first < kWidth ? examples - first : kWidth;
    int n = 0;
    for (; count - n >= kWidth; n += kWidth) {
      M square[kWidth];
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; ++k) square[k] = load(from + places[n + k] + first);
      transpose(square);
      for (int k = 0; k < used; ++k) {
        float* row = rows[first + k] + n;
        store_anywhere(row, load_anywhere(row) + square[k]);
      }
    }
    for (; n < count; ++n)
      for (int k = 0; k < used; ++k) rows[first + k][n] += from[places[n] + first + k];
  }
}

}  // namespace nos::child::NOS_CHILD_ISA
