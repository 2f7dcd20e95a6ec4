// Products at every position of a text, and the gradients of their weights. A text has few examples beside one another,
// so weights are read from panels in the order of their use, and the sums for their gradients, which run over all
// positions, have channels in their lanes.
#include <type_traits>

#include "../turn.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

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

}  // namespace

void multiply_positions(const float* panels, const float* start, int channels, int filters, Strip in, Strip out,
                        int positions, int lanes) {
  for (int p = 0; p < positions; ++p)
    for (int f = 0; f < filters; f += kPanel)
      multiply_panel(panels + static_cast<ptrdiff_t>(f) * channels, start ? start + f : nullptr, channels,
                     filters - f < kPanel ? filters - f : kPanel, in.at(p),
                     out.at(p) + static_cast<ptrdiff_t>(f) * lanes, lanes);
}

// Kept short, one position and kTurned examples at a time, sums round less; they are added to those before.
void position_weights(Strip in, int channels, Strip gradient, int filters, int positions, int lanes, int examples,
                      float* turned, float* products) {
  const int row = row_of(channels);
  for (ptrdiff_t i = 0; i < static_cast<ptrdiff_t>(filters) * row; ++i) products[i] = 0;
  for (int p = 0; p < positions; ++p)
    for (int first = 0; first < examples; first += kTurned) {
      const int count = examples - first < kTurned ? examples - first : kTurned;
      const float *x = in.at(p) + first, *g = gradient.at(p) + first;
      turn_matrix(x, lanes, channels, count, turned, row);
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
void sum_positions(Strip gradient, int filters, int positions, int lanes, float* sums) {
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

}  // namespace nos::child::NOS_CHILD_ISA
