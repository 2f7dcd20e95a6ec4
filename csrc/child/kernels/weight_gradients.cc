// Gradients of weights: products of activations and gradients, summed over the batch.
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// Adds to sums[three taps of a row][Filters], of one channel, over `columns` pixels. tap_step: between taps in sums.
template <int Filters>
void add_products(const float* in, const float* gradient, ptrdiff_t in_step, ptrdiff_t gradient_step, int columns,
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

// products[k0 + k][i0 + i] for a square of inputs and outputs.
template <int Inputs, int Outputs>
NOS_CHILD_INLINE void products_tile(const float* in, const float* gradient, int lanes, float* products, int row) {
  alignas(64) float sums[Inputs][Outputs][kLanes];
  for (int part = 0; part < kParts; ++part) {
    M s[Inputs][Outputs];
#pragma GCC unroll 4
    for (int i = 0; i < Inputs; ++i)
#pragma GCC unroll 4
      for (int k = 0; k < Outputs; ++k) s[i][k] = zero();
    for (int v = part * kWidth; v < lanes; v += kLanes) {
      M x[Inputs];
#pragma GCC unroll 4
      for (int i = 0; i < Inputs; ++i) x[i] = load(in + i * lanes + v);
#pragma GCC unroll 4
      for (int k = 0; k < Outputs; ++k) {
        const M g = pinned(load(gradient + k * lanes + v));
#pragma GCC unroll 4
        for (int i = 0; i < Inputs; ++i) s[i][k] = fma(x[i], g, s[i][k]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < Inputs; ++i)
#pragma GCC unroll 4
      for (int k = 0; k < Outputs; ++k) store(sums[i][k] + part * kWidth, s[i][k]);
  }
  for (int k = 0; k < Outputs; ++k)
    for (int i = 0; i < Inputs; ++i) products[k * row + i] = sum_of(sums[i][k]);
}

}  // namespace

// A few columns at a time, whose gradients stay in the first cache while all channels and rows of taps pass over them.
// Their sums are added to those of the columns before: short sums round less than one long one.
// sums: [tap][channel][filter][lane].
void convolve_weights(const Image& in, const Image& gradient, float* sums, float* weights, float* bias) {
  constexpr int kFilters = kWidth == 16 ? 8 : 4;
  constexpr int kCached = 6 * 1024;  // floats
  const int channels = in.channels, filters = gradient.channels, lanes = in.lanes;
  const int columns = kCached / (8 * lanes) > 1 ? kCached / (8 * lanes) : 1;  // the same on every instruction set
  const ptrdiff_t tap_step = static_cast<ptrdiff_t>(channels) * filters * kLanes;
  for (ptrdiff_t i = 0; i < 9 * tap_step; ++i) sums[i] = 0;
  for (int y = 0; y < gradient.height; ++y)
    for (int f = 0, n; f < filters; f += n) {
      n = filters - f >= kFilters ? kFilters : filters - f >= 4 ? 4 : filters - f >= 2 ? 2 : 1;
      for (int x = 0; x < gradient.width; x += columns)
        for (int dy = 0; dy < 3; ++dy)
          for (int c = 0; c < channels; ++c) {
            const auto add = n == 8   ? &add_products<8>
                             : n == 4 ? &add_products<4>
                             : n == 2 ? &add_products<2>
                                      : &add_products<1>;
            add(in.at(y + dy - 1, x - 1) + c * lanes, gradient.at(y, x) + f * lanes,
                static_cast<ptrdiff_t>(channels) * lanes, static_cast<ptrdiff_t>(filters) * lanes,
                gradient.width - x < columns ? gradient.width - x : columns, lanes,
                sums + 3 * dy * tap_step + (static_cast<ptrdiff_t>(c) * filters + f) * kLanes, tap_step);
          }
    }
  for (int f = 0; f < filters; ++f)
    for (int c = 0; c < channels; ++c)
      for (int tap = 0; tap < 9; ++tap)
        weights[(f * channels + c) * 9 + tap] =
            sum_of(sums + tap * tap_step + (static_cast<ptrdiff_t>(c) * filters + f) * kLanes);
  for (int i = 0; i < filters * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < gradient.height; ++y)
    for (int x = 0; x < gradient.width; ++x)
      for (int f = 0; f < filters; ++f) {
        const float* g = gradient.at(y, x) + f * lanes;
        for (int part = 0; part < kParts; ++part) {
          M s = load(g + part * kWidth);
          for (int v = part * kWidth + kLanes; v < lanes; v += kLanes) s = s + load(g + v);
          store(sums + f * kLanes + part * kWidth, load(sums + f * kLanes + part * kWidth) + s);
        }
      }
  for (int f = 0; f < filters; ++f) bias[f] = sum_of(sums + f * kLanes);
}

void multiply_weights(const Image& in, const Image& gradient, float* products, float* bias) {
  constexpr int kInputs = kWidth == 16 ? 4 : 2, kOutputs = 4;
  const int n = in.channels, outputs = gradient.channels, lanes = in.lanes;
  for (int i = 0; i < n; i += kInputs)
    for (int k = 0; k < outputs; k += kOutputs) {
      const float *x = in.data + static_cast<ptrdiff_t>(i) * lanes,
                  *g = gradient.data + static_cast<ptrdiff_t>(k) * lanes;
      float* to = products + static_cast<ptrdiff_t>(k) * n + i;
      if (n - i >= kInputs && outputs - k >= kOutputs) {
        products_tile<kInputs, kOutputs>(x, g, lanes, to, n);
        continue;
      }
      for (int b = 0; b < kOutputs && k + b < outputs; ++b)
        for (int a = 0; a < kInputs && i + a < n; ++a)
          products_tile<1, 1>(x + a * lanes, g + b * lanes, lanes, to + b * n + a, n);
    }
  for (int k = 0; k < outputs; ++k) {
    const float* g = gradient.data + static_cast<ptrdiff_t>(k) * lanes;
    M parts[kParts];
    for (int part = 0; part < kParts; ++part) {
      parts[part] = load(g + part * kWidth);
      for (int v = part * kWidth + kLanes; v < lanes; v += kLanes) parts[part] = parts[part] + load(g + v);
    }
    bias[k] = sum(parts);
  }
}

}  // namespace nos::child::NOS_CHILD_ISA
