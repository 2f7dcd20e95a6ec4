// Convolutions by Winograd's F(2x2, 3x3): a square of 2x2 results comes from a patch of 4x4 pixels by 16 products for
// each channel and filter, one at each "point", in place of 36. Patches, squares and weights turn into points and back
// by sums, so it pays where there are many channels and filters. An odd image's last squares lie over those before.
#include "../lanes.h"
#include "kernels.h"
#include "weight_products.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

constexpr int kPoints = 16;

// Numbers between points of `count` lists of lanes. A vector more than they take: at multiples of a large power of two
// the sixteen would share a few lines of the first cache.
NOS_CHILD_INLINE ptrdiff_t between_points(int count, ptrdiff_t lanes) { return count * lanes + kLanes; }

NOS_CHILD_INLINE int last_start(int start, int size) { return start < size - 2 ? start : size - 2; }

// The points of the patch whose square starts at (y, x), of all channels.
void patch_points(const Image& in, int y, int x, float* points) {
  const float* from[16];
  for (int k = 0; k < 16; ++k) from[k] = in.at(y - 1 + k / 4, x - 1 + k % 4);
  const ptrdiff_t next = between_points(in.channels, in.lanes);
  for (int c = 0; c < in.channels; ++c, points += in.lanes)
    for (int v = 0; v < in.lanes; v += kWidth) {
      const ptrdiff_t i = static_cast<ptrdiff_t>(c) * in.lanes + v;
      M rows[4][4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const M a = load(from[k] + i), b = load(from[4 + k] + i), d = load(from[8 + k] + i), e = load(from[12 + k] + i);
        rows[0][k] = a - d;
        rows[1][k] = b + d;
        rows[2][k] = d - b;
        rows[3][k] = b - e;
      }
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        float* to = points + 4 * k * next + v;
        const M* r = rows[k];
        store(to, r[0] - r[2]);
        store(to + next, r[1] + r[2]);
        store(to + 2 * next, r[2] - r[1]);
        store(to + 3 * next, r[1] - r[3]);
      }
    }
}

// The square that starts at (y, x), from its points.
template <bool Relu>
void square_of(const float* points, const float* start, const Image& out, int y, int x) {
  const ptrdiff_t next = between_points(out.channels, out.lanes);
  float* const to[2][2] = {{out.at(y, x), out.at(y, x + 1)}, {out.at(y + 1, x), out.at(y + 1, x + 1)}};
  for (int f = 0, i = 0; f < out.channels; ++f) {
    const M bias = start ? splat(start[f]) : zero();
    for (const int end = i + out.lanes; i < end; i += kWidth) {
      M rows[2][4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const float* p = points + k * next + i;
        const M a = load(p), b = load(p + 4 * next), c = load(p + 8 * next), d = load(p + 12 * next);
        rows[0][k] = a + b + c;
        rows[1][k] = b - c - d;
      }
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        const M* r = rows[k];
        const M left = r[0] + r[1] + r[2] + bias, right = r[1] - r[2] - r[3] + bias;
        store(to[k][0] + i, Relu ? max(zero(), left) : left);
        store(to[k][1] + i, Relu ? max(zero(), right) : right);
      }
    }
  }
}

// The points of the gradient of a square. Of its pixels those above row y1 and left of column x1 lie in another one.
void gradient_points(const Image& gradient, int y, int x, int y1, int x1, float* points) {
  const float* from[4];
  for (int k = 0; k < 4; ++k)
    from[k] = y + k / 2 >= y1 && x + k % 2 >= x1 ? gradient.at(y + k / 2, x + k % 2) : nullptr;
  const ptrdiff_t next = between_points(gradient.channels, gradient.lanes);
  for (int f = 0; f < gradient.channels; ++f, points += gradient.lanes)
    for (int v = 0; v < gradient.lanes; v += kWidth) {
      M g[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k)
        g[k] = from[k] ? load(from[k] + static_cast<ptrdiff_t>(f) * gradient.lanes + v) : zero();
      const M rows[4][2] = {{g[0], g[1]}, {g[0] + g[2], g[1] + g[3]}, {g[0] - g[2], g[1] - g[3]}, {-g[2], -g[3]}};
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        float* to = points + 4 * k * next + v;
        store(to, rows[k][0]);
        store(to + next, rows[k][0] + rows[k][1]);
        store(to + 2 * next, rows[k][0] - rows[k][1]);
        store(to + 3 * next, -rows[k][1]);
      }
    }
}

template <bool Relu>
void convolve_squares(const Matrix& m, const Image& in, const Image& out, float* memory) {
  const ptrdiff_t in_step = between_points(m.channels, in.lanes), out_step = between_points(m.filters, in.lanes);
  float* const out_points = memory + kPoints * in_step;
  for (int y = 0; y < out.height; y += 2)
    for (int x = 0; x < out.width; x += 2) {
      const int y0 = last_start(y, out.height), x0 = last_start(x, out.width);
      patch_points(in, y0, x0, memory);
      for (int k = 0; k < kPoints; ++k)
        multiply({m.weights + static_cast<ptrdiff_t>(k) * m.channels * m.filters, nullptr, m.channels, m.filters},
                 {memory + k * in_step, 1, 1, m.channels, 0, in.lanes},
                 {out_points + k * out_step, 1, 1, m.filters, 0, in.lanes});
      square_of<Relu>(out_points, m.start, out, y0, x0);
    }
}

}  // namespace

void winograd(const Matrix& m, const Image& in, const Image& out, bool relu, float* memory) {
  relu ? convolve_squares<true>(m, in, out, memory) : convolve_squares<false>(m, in, out, memory);
}

void winograd_weights(const Image& in, const Image& gradient, float* memory, float* points, float* bias) {
  const int channels = in.channels, filters = gradient.channels, lanes = in.lanes;
  const ptrdiff_t in_step = between_points(channels, lanes), gradient_step = between_points(filters, lanes);
  float* const of_gradient = memory + kPoints * in_step;
  float* const bias_sums = of_gradient + kPoints * gradient_step;
  for (int i = 0; i < filters * kLanes; ++i) bias_sums[i] = 0;
  for (int i = 0; i < kPoints * channels * filters; ++i) points[i] = 0;
  for (int y = 0; y < gradient.height; y += 2)
    for (int x = 0; x < gradient.width; x += 2) {
      const int y0 = last_start(y, gradient.height), x0 = last_start(x, gradient.width);
      patch_points(in, y0, x0, memory);
      gradient_points(gradient, y0, x0, y, x, of_gradient);
      for (ptrdiff_t k = 0; k < kPoints; ++k)
        add_products({memory + k * in_step, 1, 1, channels, 0, lanes},
                     {of_gradient + k * gradient_step, 1, 1, filters, 0, lanes}, points + k * channels * filters);
      // point 5 is the sum of the square's pixels
      for (int f = 0; f < filters; ++f)
        add_list(of_gradient + 5 * gradient_step + f * lanes, lanes, bias_sums + f * kLanes);
    }
  sum_lanes(bias_sums, filters, bias);
}

}  // namespace nos::child::NOS_CHILD_ISA
