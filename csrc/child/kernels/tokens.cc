// What lies in rows of a matrix, one for each token, to and from the lanes of examples.
#include "../turn.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// The rows of a square, of which `used` are there.
NOS_CHILD_INLINE void get_rows(M* square, const float* from, ptrdiff_t step, int used) {
  if (used >= kWidth)
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) square[i] = load(from + i * step);
  else
    for (int i = 0; i < kWidth; ++i) square[i] = i < used ? load(from + i * step) : zero();
}
NOS_CHILD_INLINE void put_rows(const M* square, float* to, ptrdiff_t step, int used) {
  if (used >= kWidth)
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) store(to + i * step, square[i]);
  else
    for (int i = 0; i < used; ++i) store(to + i * step, square[i]);
}

}  // namespace

void turn_matrix(const float* from, int from_row, int rows, int columns, float* to, int to_row) {
  for (int y = 0; y < rows; y += kWidth)
    for (int x = 0; x < columns; x += kWidth) {
      M square[kWidth];
      get_rows(square, from + static_cast<ptrdiff_t>(y) * from_row + x, from_row, rows - y);
      turn(square);
      put_rows(square, to + static_cast<ptrdiff_t>(x) * to_row + y, to_row, columns - x);
    }
}

void take(const float* table, int filters, const int32_t* tokens, Strip out, int positions, int lanes) {
  const int row = row_of(filters);
  for (int p = 0; p < positions; ++p)
    for (int v = 0; v < lanes; v += kWidth) {
      const int32_t* here = tokens + static_cast<ptrdiff_t>(p) * lanes + v;
      for (int f = 0; f < filters; f += kWidth) {
        M square[kWidth];
#pragma GCC unroll 16
        for (int l = 0; l < kWidth; ++l) square[l] = load(table + static_cast<ptrdiff_t>(here[l]) * row + f);
        turn(square);
        put_rows(square, out.at(p) + static_cast<ptrdiff_t>(f) * lanes + v, lanes, filters - f);
      }
    }
}

void collect(Strip gradient, int positions, int lanes, int examples, const int32_t* tokens, int filters, int vocabulary,
             float* table) {
  const int row = row_of(filters);
  for (ptrdiff_t i = 0; i < static_cast<ptrdiff_t>(vocabulary) * row; ++i) table[i] = 0;
  for (int p = 0; p < positions; ++p)
    for (int v = 0; v < examples; v += kWidth) {
      const int32_t* here = tokens + static_cast<ptrdiff_t>(p) * lanes + v;
      for (int f = 0; f < filters; f += kWidth) {
        M square[kWidth];
        get_rows(square, gradient.at(p) + static_cast<ptrdiff_t>(f) * lanes + v, lanes, filters - f);
        turn(square);
        for (int l = 0; l < kWidth && l < examples - v; ++l) {
          float* to = table + static_cast<ptrdiff_t>(here[l]) * row + f;
          store(to, load(to) + square[l]);
        }
      }
    }
}

void take_sums(const float* table, int row, const float* start, int filters, const int32_t* tokens, int positions,
               int lanes, float* out) {
  const int step = row_of(filters);
  for (int v = 0; v < lanes; v += kWidth)
    for (int f = 0; f < filters; f += kWidth) {
      M square[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; ++l) square[l] = load(start + f);
      for (int p = 0; p < positions; ++p) {
        const int32_t* here = tokens + static_cast<ptrdiff_t>(p) * lanes + v;
        const float* from = table + static_cast<ptrdiff_t>(p) * step + f;
#pragma GCC unroll 16
        for (int l = 0; l < kWidth; ++l) square[l] = square[l] + load(from + static_cast<ptrdiff_t>(here[l]) * row);
      }
      turn(square);
      put_rows(square, out + static_cast<ptrdiff_t>(f) * lanes + v, lanes, filters - f);
    }
}

// One position after the other: its part of the table stays in the first cache.
void collect_sums(const float* gradient, int filters, int lanes, int examples, const int32_t* tokens, int positions,
                  int vocabulary, float* turned, float* table, int row) {
  const int step = row_of(filters);
  turn_matrix(gradient, lanes, filters, examples, turned, step);
  for (ptrdiff_t i = 0; i < static_cast<ptrdiff_t>(vocabulary) * row; ++i) table[i] = 0;
  for (int p = 0; p < positions; ++p)
    for (int e = 0; e < examples; ++e) {
      const float* from = turned + static_cast<ptrdiff_t>(e) * step;
      float* to = table + static_cast<ptrdiff_t>(tokens[static_cast<ptrdiff_t>(p) * lanes + e]) * row +
                  static_cast<ptrdiff_t>(p) * step;
      for (int f = 0; f < step; f += kWidth) add(to + f, load(from + f));
    }
}

}  // namespace nos::child::NOS_CHILD_ISA
