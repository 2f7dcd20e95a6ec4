// The kernels of texts for one instruction set: NOS_CHILD_ISA names it, the compiler's options decide it. A text has
// few examples beside one another, so weights are read from panels in the order of their use, and the sums over a batch
// for the gradients of weights, which run over all positions, have channels in their lanes.
#include <type_traits>

#include "../ops/math.h"
#include "sequence.h"
#include "turn.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// ---- products -------------------------------------------------------------------------------------------------------

// For `Filters` filters of a panel and `Vectors` machine vectors: their sums stay in registers, weights are broadcast.
template <int Filters, int Vectors>
NOS_CHILD_INLINE void multiply_tile(const float* panel, const float* start, int channels, int used, const float* in,
                                    float* out, int lanes) {
  M sums[Filters][Vectors];
#pragma GCC unroll 8
  for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sums[f][v] = start      ? splat(start[f])
                   : f < used ? load(out + static_cast<ptrdiff_t>(f) * lanes + v * kWidth)
                              : zero();
  for (int c = 0; c < channels; ++c, in += lanes, panel += kPanel) {
    M x[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) x[v] = load(in + v * kWidth);
#pragma GCC unroll 8
    for (int f = 0; f < Filters; ++f) {
      const M w = splat(panel[f]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[f][v] = fma(w, x[v], sums[f][v]);
    }
  }
#pragma GCC unroll 8
  for (int f = 0; f < Filters; ++f)
    if (f < used)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) store(out + static_cast<ptrdiff_t>(f) * lanes + v * kWidth, sums[f][v]);
}

constexpr int kFilters = kTileFilters < kPanel ? kTileFilters : kPanel;

// used: filters that are not there only to fill the panel.
void multiply_panel(const float* panel, const float* start, int channels, int used, const float* in, float* out,
                    int lanes) {
  const int vectors = lanes / kWidth;
  for (int f = 0; f < used; f += kFilters) {
    const auto tile = [&](auto width, int v) __attribute__((always_inline)) {
      multiply_tile<kFilters, decltype(width)::value>(panel + f, start ? start + f : nullptr, channels, used - f,
                                                      in + v * kWidth,
                                                      out + static_cast<ptrdiff_t>(f) * lanes + v * kWidth, lanes);
    };
    int v = 0;
    for (; vectors - v >= 3 && vectors - v != 4; v += 3) tile(std::integral_constant<int, 3>{}, v);
    for (; vectors - v >= 2; v += 2) tile(std::integral_constant<int, 2>{}, v);
    if (v < vectors) tile(std::integral_constant<int, 1>{}, v);
  }
}

void multiply(const float* panels, const float* start, int channels, int filters, Strip in, Strip out, int positions,
              int lanes) {
  for (int p = 0; p < positions; ++p)
    for (int f = 0; f < filters; f += kPanel)
      multiply_panel(panels + static_cast<ptrdiff_t>(f) * channels, start ? start + f : nullptr, channels,
                     filters - f < kPanel ? filters - f : kPanel, in.at(p),
                     out.at(p) + static_cast<ptrdiff_t>(f) * lanes, lanes);
}

// ---- turning --------------------------------------------------------------------------------------------------------

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

void turn_all(const float* from, int from_row, int rows, int columns, float* to, int to_row) {
  for (int y = 0; y < rows; y += kWidth)
    for (int x = 0; x < columns; x += kWidth) {
      M square[kWidth];
      get_rows(square, from + static_cast<ptrdiff_t>(y) * from_row + x, from_row, rows - y);
      turn(square);
      put_rows(square, to + static_cast<ptrdiff_t>(x) * to_row + y, to_row, columns - x);
    }
}

// ---- gradients of weights -------------------------------------------------------------------------------------------

// products[Filters][Vectors] += sum over examples of gradient[filter][example] * turned[example].
template <int Filters, int Vectors>
NOS_CHILD_INLINE void weights_tile(const float* turned, int row, const float* gradient, int lanes, int examples,
                                   float* products) {
  M sums[Filters][Vectors];
#pragma GCC unroll 4
  for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) sums[f][v] = zero();
  for (int e = 0; e < examples; ++e, turned += row) {
    M x[Vectors];
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) x[v] = load(turned + v * kWidth);
#pragma GCC unroll 4
    for (int f = 0; f < Filters; ++f) {
      const M g = splat(gradient[static_cast<ptrdiff_t>(f) * lanes + e]);
#pragma GCC unroll 6
      for (int v = 0; v < Vectors; ++v) sums[f][v] = fma(g, x[v], sums[f][v]);
    }
  }
#pragma GCC unroll 4
  for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) {
      float* to = products + static_cast<ptrdiff_t>(f) * row + v * kWidth;
      store(to, load(to) + sums[f][v]);
    }
}

template <int Filters>
void weights_filters(const float* turned, int row, const float* gradient, int lanes, int examples, float* products) {
  constexpr int kMost = kWidth == 16 ? 6 : 3;  // with 4 filters 24 and 12 accumulators
  const int vectors = row / kWidth;
  const auto tile = [&](auto width, int v) __attribute__((always_inline)) {
    weights_tile<Filters, decltype(width)::value>(turned + v * kWidth, row, gradient, lanes, examples,
                                                  products + v * kWidth);
  };
  int v = 0;
  for (; vectors - v >= kMost; v += kMost) tile(std::integral_constant<int, kMost>{}, v);
  for (; vectors - v >= 2; v += 2) tile(std::integral_constant<int, 2>{}, v);
  if (v < vectors) tile(std::integral_constant<int, 1>{}, v);
}

// Kept short, one position and kTurned examples at a time, sums round less; they are added to those before.
void multiply_weights(Strip in, int channels, Strip gradient, int filters, int positions, int lanes, int examples,
                      float* turned, float* products) {
  const int row = row_of(channels);
  for (ptrdiff_t i = 0; i < static_cast<ptrdiff_t>(filters) * row; ++i) products[i] = 0;
  for (int p = 0; p < positions; ++p)
    for (int first = 0; first < examples; first += kTurned) {
      const int count = examples - first < kTurned ? examples - first : kTurned;
      const float *x = in.at(p) + first, *g = gradient.at(p) + first;
      turn_all(x, lanes, channels, count, turned, row);
      int f = 0;
      for (; filters - f >= 4; f += 4)
        weights_filters<4>(turned, row, g + static_cast<ptrdiff_t>(f) * lanes, lanes, count,
                           products + static_cast<ptrdiff_t>(f) * row);
      for (; f < filters; ++f)
        weights_filters<1>(turned, row, g + static_cast<ptrdiff_t>(f) * lanes, lanes, count,
                           products + static_cast<ptrdiff_t>(f) * row);
    }
}

// A few filters at a time, so that memory is read by more than a line.
void sum_rows(Strip gradient, int filters, int positions, int lanes, float* sums) {
  constexpr int kRows = 8;
  for (int f = 0; f < filters; f += kRows) {
    const int count = filters - f < kRows ? filters - f : kRows;
    M all[kRows][kParts];
    for (int i = 0; i < kRows; ++i)
      for (int part = 0; part < kParts; ++part) all[i][part] = zero();
    for (int p = 0; p < positions; ++p)
      for (int i = 0; i < count; ++i)
        for (int part = 0; part < kParts; ++part) {
          const float* g = gradient.at(p) + static_cast<ptrdiff_t>(f + i) * lanes + part * kWidth;
          M here = load(g);
          for (int v = kLanes; v < lanes; v += kLanes) here = here + load(g + v);
          all[i][part] = all[i][part] + here;
        }
    for (int i = 0; i < count; ++i) sums[f + i] = sum(all[i]);
  }
}

// ---- tokens ---------------------------------------------------------------------------------------------------------

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

// ---- gated recurrent units ------------------------------------------------------------------------------------------

NOS_CHILD_INLINE float sigmoid(float x) { return 1.0f / (1.0f + math::exp<float>(-x)); }

// In short loops over a logical vector, which the compiler turns into vectors.
void gate(float* gates, const float* before, float* state, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes) {
    float *n = gates + i, *r = n + count, *z = r + count, *q = z + count;
    alignas(64) float open[kLanes], keep_old[kLanes], fresh[kLanes];
    for (int l = 0; l < kLanes; ++l) open[l] = sigmoid(r[l]);
    for (int l = 0; l < kLanes; ++l) keep_old[l] = sigmoid(z[l]);
    for (int l = 0; l < kLanes; ++l) fresh[l] = fused(open[l], q[l], n[l]);
    for (int l = 0; l < kLanes; ++l) fresh[l] = math::tanh<float>(fresh[l]);
    for (int l = 0; l < kLanes; l += kWidth) {
      const M old = load(keep_old + l), of_n = load(fresh + l);
      store(r + l, load(open + l));
      store(z + l, old);
      store(n + l, of_n);
      store(state + i + l, fma(old, load(before + i + l) - of_n, of_n));
    }
  }
}

void gate_input(float* gates, const float* before, const float* gradient, float* carry, ptrdiff_t count) {
  float *n = gates, *r = n + count, *z = r + count, *q = z + count;
  const M one = splat(1.0f);
  for (ptrdiff_t i = 0; i < count; i += kWidth) {
    const M fresh = load(n + i), open = load(r + i), keep_old = load(z + i);
    const M g = load(gradient + i) + load(carry + i);
    const M of_n = g * (one - keep_old) * (one - fresh * fresh);
    store(z + i, g * (load(before + i) - fresh) * keep_old * (one - keep_old));
    store(r + i, of_n * load(q + i) * open * (one - open));
    store(n + i, of_n);
    store(q + i, of_n * open);
    store(carry + i, g * keep_old);
  }
}

}  // namespace

extern const SequenceKernels g_sequence_kernels;
const SequenceKernels g_sequence_kernels = {multiply, multiply_weights, sum_rows, turn_all,
                                            take,     collect,          gate,     gate_input};

}  // namespace nos::child::NOS_CHILD_ISA
