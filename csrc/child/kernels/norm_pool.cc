// Batch normalisation with the maxima of 2x2 squares.
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {

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

namespace {

// The four pixels of a square, by rows.
struct Square {
  const float* at[4];
};
NOS_CHILD_INLINE Square square(const Image& in, int y, int x, int f) {
  const ptrdiff_t offset = static_cast<ptrdiff_t>(f) * in.lanes;
  return {{in.at(2 * y, 2 * x) + offset, in.at(2 * y, 2 * x + 1) + offset, in.at(2 * y + 1, 2 * x) + offset,
           in.at(2 * y + 1, 2 * x + 1) + offset}};
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

}  // namespace

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

}  // namespace nos::child::NOS_CHILD_ISA
