// Batch normalisation with the maxima of 2x2 squares.
#include <type_traits>

#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

// work(v, whole) for machine vectors first, first + step, ... of a channel of one pixel. whole: every lane holds an
// example, so that only what comes after pays for the mask.
template <class Work>
NOS_CHILD_INLINE void for_lanes(int first, int step, const Valid& valid, int lanes, const Work& work) {
  int v = first;
  for (; v < valid.whole; v += step) work(v, std::true_type());
  for (; v < lanes; v += step) work(v, std::false_type());
}

// The four pixels of a square, by rows.
struct Square {
  float* at[4];
  NOS_CHILD_INLINE Square(const Image& in, int y, int x)
      : at{in.at(2 * y, 2 * x), in.at(2 * y, 2 * x + 1), in.at(2 * y + 1, 2 * x), in.at(2 * y + 1, 2 * x + 1)} {}
};

}  // namespace

void sum_channels(const Image& in, const Channel* channels, const Valid& valid, float* sums, float* of_distance,
                  float* of_square) {
  for (int i = 0; i < 2 * in.channels * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < in.height; ++y)
    for (int x = 0; x < in.width; ++x)
      for (int f = 0; f < in.channels; ++f) {
        const float* from = in.at(y, x) + f * in.lanes;
        const M center = splat(channels[f].mean);
        for (int part = 0; part < kParts; ++part) {
          M distances = zero(), squares = zero();
          for_lanes(part * kWidth, kLanes, valid, in.lanes, [&](int v, auto whole) NOS_CHILD_INLINE_LAMBDA {
            M a = load(from + v) - center;
            if constexpr (!whole) a = a * load(valid.lanes + v);
            distances = distances + a;
            squares = fma(a, a, squares);
          });
          add(sums + f * kLanes + part * kWidth, distances);
          add(sums + (in.channels + f) * kLanes + part * kWidth, squares);
        }
      }
  sum_lanes(sums, in.channels, of_distance);
  sum_lanes(sums + in.channels * kLanes, in.channels, of_square);
}

void norm_pool(const Image& in, const Channel* channels, const Image& out) {
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const Square from(in, y, x);
      float* to = out.at(y, x);
      for (int f = 0, i = 0; f < in.channels; ++f) {
        const M scale = splat(channels[f].scale), shift = splat(channels[f].shift);
        for (const int end = i + in.lanes; i < end; i += kWidth) {
          M x[4];
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) x[k] = fma(load(from.at[k] + i), scale, shift);
          // max() gives its second argument where one is NaN; a NaN in a square must stay, as in torch
          const M upper = select(unordered(x[0], x[1]), x[0] + x[1], max(x[0], x[1]));
          const M lower = select(unordered(x[2], x[3]), x[2] + x[3], max(x[2], x[3]));
          store(to + i, select(unordered(upper, lower), upper + lower, max(upper, lower)));
        }
      }
    }
}

// The first pixel of a square that holds the maximum is the one that counts, as in torch.
void norm_pool_sums(const Image& in, const Channel* channels, const Image& out, const Image& gradient, float* sums,
                    float* of_gradient, float* of_product) {
  for (int i = 0; i < 2 * in.channels * kLanes; ++i) sums[i] = 0;
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const Square from(in, y, x);
      const float *best = out.at(y, x), *g = gradient.at(y, x);
      for (int f = 0; f < in.channels; ++f) {
        const M scale = splat(channels[f].scale), shift = splat(channels[f].shift), mean = splat(channels[f].mean);
        for (int part = 0; part < kParts; ++part) {
          M s = zero(), product = zero();
          const int end = (f + 1) * in.lanes;
          for (int i = f * in.lanes + part * kWidth; i < end; i += kLanes) {
            M at_best = load(from.at[3] + i);
            const M b = pinned(load(best + i)), gi = pinned(load(g + i));
#pragma GCC unroll 3
            for (int k = 2; k >= 0; --k) {
              const M z = pinned(load(from.at[k] + i));
              at_best = select(equal(fma(z, scale, shift), b), z, at_best);
            }
            s = s + gi;
            product = fma(gi, at_best - mean, product);
          }
          add(sums + f * kLanes + part * kWidth, s);
          add(sums + (in.channels + f) * kLanes + part * kWidth, product);
        }
      }
    }
  sum_lanes(sums, in.channels, of_gradient);
  sum_lanes(sums + in.channels * kLanes, in.channels, of_product);
}

void norm_pool_input(const Image& in, const Channel* channels, const Image& out, const Image& gradient,
                     const Valid& valid, const Image& to) {
  // Of a pixel that is z, with `share` of the square's gradient. Positive: the ReLU before.
  const auto input = [&](const Channel& c, M z, M share, int v, auto whole) NOS_CHILD_INLINE_LAMBDA {
    const M all_of_it = splat(c.scale) * fma(z - splat(c.mean), splat(-c.slope), share - splat(c.mean_gradient));
    return keep(positive_or_nan(z), whole.value ? all_of_it : all_of_it * load(valid.lanes + v));
  };
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const Square from(in, y, x), into(to, y, x);
      for (int f = 0; f < in.channels; ++f) {
        const Channel c = channels[f];
        const M scale = splat(c.scale), shift = splat(c.shift);
        const float *best = out.at(y, x) + f * in.lanes, *g = gradient.at(y, x) + f * in.lanes;
        for_lanes(0, kWidth, valid, in.lanes, [&](int v, auto whole) NOS_CHILD_INLINE_LAMBDA {
          const M b = pinned(load(best + v));
          M left = load(g + v);  // the gradient, until a pixel has taken it
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) {
            const M z = pinned(load(from.at[k] + f * in.lanes + v));
            const M share = k < 3 ? keep(equal(fma(z, scale, shift), b), left) : left;
            left = left - share;
            store(into.at[k] + f * in.lanes + v, input(c, z, share, v, whole));
          }
        });
      }
    }
  for (int y = 0; y < in.height; ++y)  // the last row and column of an odd image
    for (int x = y < 2 * out.height ? 2 * out.width : 0; x < in.width; ++x)
      for (int f = 0; f < in.channels; ++f)
        for_lanes(0, kWidth, valid, in.lanes, [&](int v, auto whole) NOS_CHILD_INLINE_LAMBDA {
          const M z = load(in.at(y, x) + f * in.lanes + v);
          store(to.at(y, x) + f * in.lanes + v, input(channels[f], z, zero(), v, whole));
        });
}

}  // namespace nos::child::NOS_CHILD_ISA
