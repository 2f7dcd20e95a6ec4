// Products of weights and activations: the forward pass and the gradient of the input.
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// For `Filters` filters from f0 on, and `Vectors` machine vectors: their sums stay in registers, weights are broadcast.
template <int Filters, int Vectors, bool Relu>
NOS_CHILD_INLINE void product_tile(const Matrix& m, const ptrdiff_t* taps, int num_taps, int f0, int lanes,
                                   const float* in, float* out) {
  M sums[Filters][Vectors];
#pragma GCC unroll 8
  for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sums[f][v] = m.start ? splat(m.start[f0 + f]) : zero();
  const float* weights = m.weights + f0;
  for (int tap = 0; tap < num_taps; ++tap) {
    const float* from = in + taps[tap];
    for (int c = 0; c < m.channels; ++c, from += lanes, weights += m.filters) {
      M x[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) x[v] = load(from + v * kWidth);
#pragma GCC unroll 8
      for (int f = 0; f < Filters; ++f) {
        const M w = splat(weights[f]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[f][v] = fma(w, x[v], sums[f][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      store(out + static_cast<ptrdiff_t>(f0 + f) * lanes + v * kWidth,
            Relu ? max(zero(), sums[f][v]) : sums[f][v]);  // NaN stays
}

template <int Filters, bool Relu>
NOS_CHILD_INLINE void product_filters(const Matrix& m, const ptrdiff_t* taps, int num_taps, int f0, int lanes,
                                      const float* in, float* out) {
  const int vectors = lanes / kWidth;
  int v = 0;
  for (; vectors - v >= kTileVectors && vectors - v != kTileVectors + 1; v += kTileVectors)
    product_tile<Filters, kTileVectors, Relu>(m, taps, num_taps, f0, lanes, in + v * kWidth, out + v * kWidth);
  for (; vectors - v >= 2; v += 2)
    product_tile<Filters, 2, Relu>(m, taps, num_taps, f0, lanes, in + v * kWidth, out + v * kWidth);
  if (v < vectors) product_tile<Filters, 1, Relu>(m, taps, num_taps, f0, lanes, in + v * kWidth, out + v * kWidth);
}

// All filters and vectors at one pixel.
template <bool Relu>
NOS_CHILD_INLINE void product(const Matrix& m, const ptrdiff_t* taps, int num_taps, int lanes, const float* in,
                              float* out) {
  int f = 0;
  for (; m.filters - f >= kTileFilters; f += kTileFilters)
    product_filters<kTileFilters, Relu>(m, taps, num_taps, f, lanes, in, out);
  if constexpr (kTileFilters > 4)
    for (; m.filters - f >= 4; f += 4) product_filters<4, Relu>(m, taps, num_taps, f, lanes, in, out);
  for (; m.filters - f >= 2; f += 2) product_filters<2, Relu>(m, taps, num_taps, f, lanes, in, out);
  if (f < m.filters) product_filters<1, Relu>(m, taps, num_taps, f, lanes, in, out);
}

template <bool Relu>
void convolve_all(const Matrix& m, const Image& in, const Image& out) {
  ptrdiff_t taps[9];
  for (int tap = 0; tap < 9; ++tap) taps[tap] = in.at(tap / 3, tap % 3) - in.at(0, 0);
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) product<Relu>(m, taps, 9, in.lanes, in.at(y - 1, x - 1), out.at(y, x));
}

}  // namespace

void convolve(const Matrix& m, const Image& in, const Image& out, bool relu) {
  relu ? convolve_all<true>(m, in, out) : convolve_all<false>(m, in, out);
}

void multiply(const Matrix& m, const Image& in, const Image& out) {
  const ptrdiff_t here[] = {0};
  product<false>(m, here, 1, in.lanes, in.data, out.data);
}

}  // namespace nos::child::NOS_CHILD_ISA
