// The kernels of children for one instruction set: NOS_CHILD_ISA names it, the compiler's options decide it. Sums over
// the batch keep one order: pixels by rows, vectors of examples, then the sixteen lanes in pairs.
#include <cmath>

#include "../ops/math.h"
#include "lanes.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// ---- products -------------------------------------------------------------------------------------------------------

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

void convolve(const Matrix& m, const Image& in, const Image& out, bool relu) {
  relu ? convolve_all<true>(m, in, out) : convolve_all<false>(m, in, out);
}

void multiply(const Matrix& m, const Image& in, const Image& out) {
  const ptrdiff_t here[] = {0};
  product<false>(m, here, 1, in.lanes, in.data, out.data);
}

// ---- gradients of weights -------------------------------------------------------------------------------------------

// The sum over the lanes of one logical vector in memory.
NOS_CHILD_INLINE float sum_of(const float* lanes) {
  M parts[kParts];
  for (int part = 0; part < kParts; ++part) parts[part] = load(lanes + part * kWidth);
  return sum(parts);
}

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
          const M gf = load(g + f * lanes + v);
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
        const M g = load(gradient + k * lanes + v);
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

// ---- normalisation and pooling --------------------------------------------------------------------------------------

void sum_channels(const Image& in, const Channel* channels, const float* valid, float* sums, float* out) {
  for (int i = 0; i < in.channels * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < in.height; ++y)
    for (int x = 0; x < in.width; ++x)
      for (int f = 0; f < in.channels; ++f) {
        const float* from = in.at(y, x) + f * in.lanes;
        const M mean = channels ? splat(channels[f].mean) : zero();
        for (int part = 0; part < kParts; ++part) {
          M s = zero();
          for (int v = part * kWidth; v < in.lanes; v += kLanes) {
            const M distance = (load(from + v) - mean) * load(valid + v);
            s = channels ? fma(distance, distance, s) : s + distance;
          }
          store(sums + f * kLanes + part * kWidth, load(sums + f * kLanes + part * kWidth) + s);
        }
      }
  for (int f = 0; f < in.channels; ++f) out[f] = sum_of(sums + f * kLanes);
}

// The four pixels of a square, by rows.
struct Square {
  const float* at[4];
};
NOS_CHILD_INLINE Square square(const Image& in, int y, int x, int f) {
  const ptrdiff_t offset = static_cast<ptrdiff_t>(f) * in.lanes;
  return {{in.at(2 * y, 2 * x) + offset, in.at(2 * y, 2 * x + 1) + offset, in.at(2 * y + 1, 2 * x) + offset,
           in.at(2 * y + 1, 2 * x + 1) + offset}};
}

void norm_pool(const Image& in, const Channel* channels, const Image& out) {
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x)
      for (int f = 0; f < in.channels; ++f) {
        const M scale = splat(channels[f].scale), shift = splat(channels[f].shift);
        const Square from = square(in, y, x, f);
        float* to = out.at(y, x) + f * in.lanes;
        for (int v = 0; v < in.lanes; v += kWidth) {
          M best = fma(load(from.at[0] + v), scale, shift);
#pragma GCC unroll 3
          for (int k = 1; k < 4; ++k) best = max(best, fma(load(from.at[k] + v), scale, shift));
          store(to + v, best);
        }
      }
}

// hit[k]: where pixel k is the first of its square that holds the maximum, as torch chooses.
NOS_CHILD_INLINE void choose(const M* z, M scale, M shift, M best, Mask* hit) {
  Mask left = all();
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    hit[k] = both(left, equal(fma(z[k], scale, shift), best));
    left = without(left, hit[k]);
  }
}

void norm_pool_sums(const Image& in, const Channel* channels, const Image& out, const Image& gradient, float* sums,
                    float* of_gradient, float* of_product) {
  for (int i = 0; i < 2 * in.channels * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x)
      for (int f = 0; f < in.channels; ++f) {
        const M scale = splat(channels[f].scale), shift = splat(channels[f].shift), mean = splat(channels[f].mean);
        const Square from = square(in, y, x, f);
        const float *best = out.at(y, x) + f * in.lanes, *g = gradient.at(y, x) + f * in.lanes;
        for (int part = 0; part < kParts; ++part) {
          float* to = sums + 2 * f * kLanes + part * kWidth;
          M s = zero(), product = zero();
          for (int v = part * kWidth; v < in.lanes; v += kLanes) {
            M z[4];
            Mask hit[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) z[k] = load(from.at[k] + v);
            choose(z, scale, shift, load(best + v), hit);
            M at_best = keep(hit[0], z[0]);
#pragma GCC unroll 3
            for (int k = 1; k < 4; ++k) at_best = at_best + keep(hit[k], z[k]);
            const M gv = load(g + v);
            s = s + gv;
            product = fma(gv, at_best - mean, product);
          }
          store(to, load(to) + s);
          store(to + kLanes, load(to + kLanes) + product);
        }
      }
  for (int f = 0; f < in.channels; ++f) {
    of_gradient[f] = sum_of(sums + 2 * f * kLanes);
    of_product[f] = sum_of(sums + (2 * f + 1) * kLanes);
  }
}

void norm_pool_input(const Image& in, const Channel* channels, const Image& out, const Image& gradient,
                     const float* valid, const Image& to) {
  const int lanes = in.lanes;
  // of one pixel that is z, with the gradient g of its normalised value
  const auto input = [&](const Channel& c, M z, M g, int v) __attribute__((always_inline)) {
    const M all_of_it = splat(c.scale) * (g - splat(c.mean_gradient) - (z - splat(c.mean)) * splat(c.slope));
    return keep(positive(z), all_of_it * load(valid + v));
  };
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x)
      for (int f = 0; f < in.channels; ++f) {
        const Channel c = channels[f];
        const M scale = splat(c.scale), shift = splat(c.shift);
        const Square from = square(in, y, x, f), into = square(to, y, x, f);
        const float *best = out.at(y, x) + f * lanes, *g = gradient.at(y, x) + f * lanes;
        for (int v = 0; v < lanes; v += kWidth) {
          M z[4];
          Mask hit[4];
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) z[k] = load(from.at[k] + v);
          choose(z, scale, shift, load(best + v), hit);
          const M gv = load(g + v);
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) store(const_cast<float*>(into.at[k]) + v, input(c, z[k], keep(hit[k], gv), v));
        }
      }
  for (int y = 0; y < in.height; ++y)  // the last row and column of an odd image
    for (int x = y < 2 * out.height ? 2 * out.width : 0; x < in.width; ++x)
      for (int f = 0; f < in.channels; ++f)
        for (int v = 0; v < lanes; v += kWidth)
          store(to.at(y, x) + f * lanes + v, input(channels[f], load(in.at(y, x) + f * lanes + v), zero(), v));
}

// ---- the rest -------------------------------------------------------------------------------------------------------

void relu(const float* in, float* out, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kWidth) store(out + i, max(zero(), load(in + i)));
}
void relu_input(const float* out, const float* gradient, float* to, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kWidth) store(to + i, keep(positive(load(out + i)), load(gradient + i)));
}

Loss cross_entropy(const Image& logits, const int32_t* classes, int examples, bool gradient, float* probabilities) {
  const int n = logits.channels, lanes = logits.lanes;
  Loss loss{0, 0, 0};
  for (int p = 0; p < logits.width; ++p)
    for (int e = 0; e < examples; ++e) loss.counted += classes[static_cast<ptrdiff_t>(p) * lanes + e] >= 0;
  const float share = loss.counted ? static_cast<float>(1 / static_cast<double>(loss.counted)) : 0;
  for (int at = 0; at < logits.width * lanes; at += kLanes) {
    const int first = at % lanes;
    if (!gradient && first >= examples) continue;
    float highest[kLanes], total[kLanes], its[kLanes];
    int32_t best[kLanes];
    const ptrdiff_t place = static_cast<ptrdiff_t>(at / lanes) * n * lanes + first;
    const float* x = logits.data + place;
    float* p = probabilities + place;
    const int32_t* wanted = classes + at;  // only of lanes below `used`
    const int used = examples - first;
    for (int l = 0; l < kLanes; ++l) highest[l] = x[l], best[l] = 0, total[l] = 0;
    for (int k = 1; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) {
        const float a = x[static_cast<ptrdiff_t>(k) * lanes + l];
        const bool more = a > highest[l];
        best[l] = more ? k : best[l];
        highest[l] = more ? a : highest[l];
      }
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) {
        const ptrdiff_t i = static_cast<ptrdiff_t>(k) * lanes + l;
        p[i] = math::exp<float>(x[i] - highest[l]);
        total[l] += p[i];
      }
    for (int l = 0; l < kLanes; ++l) {
      const int32_t k = l < used ? wanted[l] : -1;
      its[l] = k >= 0 ? x[static_cast<ptrdiff_t>(k) * lanes + l] : 0;
    }
    float nats[kLanes];
    for (int l = 0; l < kLanes; ++l) nats[l] = math::log<float>(total[l]) + (highest[l] - its[l]);
    for (int l = 0; l < kLanes && l < used; ++l) {
      if (wanted[l] < 0) continue;
      loss.sum += static_cast<double>(nats[l]);
      loss.right += best[l] == wanted[l];
    }
    if (!gradient) continue;
    float weight[kLanes];
    for (int l = 0; l < kLanes; ++l) weight[l] = l < used && wanted[l] >= 0 ? share / total[l] : 0;
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) p[static_cast<ptrdiff_t>(k) * lanes + l] *= weight[l];
    for (int l = 0; l < kLanes && l < used; ++l)
      if (wanted[l] >= 0) p[static_cast<ptrdiff_t>(wanted[l]) * lanes + l] -= share;
  }
  return loss;
}

}  // namespace

#define NOS_STRING_OF(x) #x
#define NOS_STRING(x) NOS_STRING_OF(x)
extern const SequenceKernels g_sequence_kernels;
extern const Kernels g_kernels;
const Kernels g_kernels = {NOS_STRING(NOS_CHILD_ISA),
                           &g_sequence_kernels,
                           convolve,
                           convolve_weights,
                           multiply,
                           multiply_weights,
                           sum_channels,
                           norm_pool,
                           norm_pool_sums,
                           norm_pool_input,
                           relu,
                           relu_input,
                           cross_entropy};

}  // namespace nos::child::NOS_CHILD_ISA
