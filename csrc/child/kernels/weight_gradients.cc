// Gradients of weights: products of activations and gradients, summed over the batch.
#include "../lanes.h"
#include "kernels.h"
#include "weight_products.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// Adds to sums[three taps of a row][Filters], of one channel, over `columns` pixels. tap_step: between taps in sums.
template <int Filters>
void add_taps(const float* in, const float* gradient, ptrdiff_t in_step, ptrdiff_t gradient_step, int columns,
              int lanes, float* sums, ptrdiff_t tap_step) {
  for (int part = 0; part < kParts; ++part) {
    M s[3][Filters];
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t)
#pragma GCC unroll 8
      for (int f = 0; f < Filters; ++f) s[t][f] = zero();
    for (int x = 0; x < columns; ++x) {
      const float* from = in + x * in_step + part * kWidth;
      const float* g = gradient + x * gradient_step + part * kWidth;
      for (int v = 0; v < lanes; v += kLanes) {
        M taps[3];
#pragma GCC unroll 3
        for (int t = 0; t < 3; ++t) taps[t] = load(from + t * in_step + v);
#pragma GCC unroll 8
        for (int f = 0; f < Filters; ++f) {
          const M gf = pinned(load(g + f * lanes + v));
#pragma GCC unroll 3
          for (int t = 0; t < 3; ++t) s[t][f] = fma(taps[t], gf, s[t][f]);
        }
      }
    }
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t)
#pragma GCC unroll 8
      for (int f = 0; f < Filters; ++f) {
        float* to = sums + t * tap_step + f * kLanes + part * kWidth;
        store(to, load(to) + s[t][f]);
      }
  }
}

// Adds to products[k][i], of a tile of inputs and outputs. row: between outputs.
template <int Inputs, int Outputs>
NOS_CHILD_INLINE void products_tile(const float* in, const float* gradient, int lanes, float* products, int row) {
  constexpr int kTile = (Inputs * Outputs + kWidth - 1) / kWidth * kWidth;
  M sums[kTile][kParts];
  for (int n = Inputs * Outputs; n < kTile; ++n)
    for (int part = 0; part < kParts; ++part) sums[n][part] = zero();
  for (int part = 0; part < kParts; ++part) {
    M s[Outputs][Inputs];
#pragma GCC unroll 4
    for (int k = 0; k < Outputs; ++k)
#pragma GCC unroll 16
      for (int i = 0; i < Inputs; ++i) s[k][i] = zero();
    for (int v = part * kWidth; v < lanes; v += kLanes) {
      M x[Inputs];
#pragma GCC unroll 16
      for (int i = 0; i < Inputs; ++i) x[i] = pinned(load(in + i * lanes + v));
#pragma GCC unroll 4
      for (int k = 0; k < Outputs; ++k) {
        const M g = pinned(load(gradient + k * lanes + v));
#pragma GCC unroll 16
        for (int i = 0; i < Inputs; ++i) s[k][i] = fma(x[i], g, s[k][i]);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < Outputs; ++k)
#pragma GCC unroll 16
      for (int i = 0; i < Inputs; ++i) sums[k * Inputs + i][part] = s[k][i];
  }
  alignas(64) float out[kTile];
  for (int n = 0; n < kTile; n += kWidth) store(out + n, sums_of(sums + n));
  constexpr int kFew = Inputs < 4 ? Inputs : 4;
  using Few __attribute__((vector_size(4 * kFew), aligned(4), may_alias)) = float;
#pragma GCC unroll 4
  for (int k = 0; k < Outputs; ++k)
#pragma GCC unroll 4
    for (int i = 0; i < Inputs; i += kFew)
      *reinterpret_cast<Few*>(products + k * row + i) += *reinterpret_cast<const Few*>(out + k * Inputs + i);
}

}  // namespace

// A few columns at a time, whose gradients stay in the first cache while all channels and rows of taps pass over them.
// Their sums are added to those of the columns before: short sums round less than one long one.
// sums: [tap][channel][filter][lane], then the bias's [filter][lane].
void convolve_weights(const Image& in, const Image& gradient, float* sums, float* weights, float* bias) {
  constexpr int kFilters = kWidth == 16 ? 8 : 4;
  constexpr int kCached = 6 * 1024;  // floats
  const int channels = in.channels, filters = gradient.channels, lanes = in.lanes, pairs = channels * filters;
  const int columns = kCached / (8 * lanes) > 1 ? kCached / (8 * lanes) : 1;  // the same on every instruction set
  const ptrdiff_t tap_step = static_cast<ptrdiff_t>(pairs) * kLanes;
  float* const bias_sums = sums + 9 * tap_step;
  for (ptrdiff_t i = 0; i < 9 * tap_step + filters * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < gradient.height; ++y)
    for (int f = 0, n; f < filters; f += n) {
      n = filters - f >= kFilters ? kFilters : filters - f >= 4 ? 4 : filters - f >= 2 ? 2 : 1;
      const auto add_tile = n == 8 ? &add_taps<8> : n == 4 ? &add_taps<4> : n == 2 ? &add_taps<2> : &add_taps<1>;
      for (int first = 0, end; first < gradient.width; first = end) {
        end = gradient.width - first < columns ? gradient.width : first + columns;
        for (int x = first; x < end; ++x)
          for (int k = f; k < f + n; ++k) add_list(gradient.at(y, x) + k * lanes, lanes, bias_sums + k * kLanes);
        for (int dy = 0; dy < 3; ++dy)
          for (int c = 0; c < channels; ++c)
            add_tile(in.at(y + dy - 1, first - 1) + c * lanes, gradient.at(y, first) + f * lanes,
                     static_cast<ptrdiff_t>(channels) * lanes, static_cast<ptrdiff_t>(filters) * lanes, end - first,
                     lanes, sums + 3 * dy * tap_step + (c * filters + f) * kLanes, tap_step);
      }
    }
  sum_lanes(bias_sums, filters, bias);
  sum_lanes(sums, 9 * pairs, sums);
  for (int f = 0; f < filters; ++f)
    for (int c = 0; c < channels; ++c)
      for (int tap = 0; tap < 9; ++tap) weights[(f * channels + c) * 9 + tap] = sums[tap * pairs + c * filters + f];
}

void add_products(const Image& in, const Image& gradient, float* products) {
  constexpr int kInputs = 4, kOutputs = kWidth == 16 ? 4 : 2;
  const int inputs = in.channels, outputs = gradient.channels, lanes = in.lanes;
  // a row of tiles of Inputs x Outputs from output k and input i on; returns the input after it
  const auto tiles = [&]<int Inputs, int Outputs>(int i, int k) {
    for (; inputs - i >= Inputs; i += Inputs)
      products_tile<Inputs, Outputs>(in.data + static_cast<ptrdiff_t>(i) * lanes,
                                     gradient.data + static_cast<ptrdiff_t>(k) * lanes, lanes,
                                     products + static_cast<ptrdiff_t>(k) * inputs + i, inputs);
    return i;
  };
  int k = 0;
  for (; outputs - k >= kOutputs; k += kOutputs) {
    const int rest = tiles.template operator()<kInputs, kOutputs>(0, k);
    for (int b = 0; b < kOutputs; ++b) tiles.template operator()<1, 1>(rest, k + b);
  }
  for (; k < outputs; ++k) tiles.template operator()<1, 1>(tiles.template operator()<kWidth, 1>(0, k), k);
}

void multiply_weights(const Image& in, const Image& gradient, float* products, float* bias) {
  const int outputs = gradient.channels, lanes = in.lanes;
  for (ptrdiff_t i = 0; i < ptrdiff_t{1} * outputs * in.channels; ++i) products[i] = 0;
  add_products(in, gradient, products);
  for (int k = 0; k < outputs; ++k) {
    alignas(64) float sums[kLanes] = {};
    add_list(gradient.data + static_cast<ptrdiff_t>(k) * lanes, lanes, sums);
    bias[k] = sum_of(sums);
  }
}

}  // namespace nos::child::NOS_CHILD_ISA
