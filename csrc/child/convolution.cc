#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "layer.h"

namespace nos::child {
namespace {

// Points of a 3x3 kernel for Winograd's algorithm: G kernel G^T with the rows of G (1, 0, 0), (1, 1, 1) / 2,
// (1, -1, 1) / 2 and (0, 0, 1). step: between points.
void kernel_points(const float* kernel, float* points, ptrdiff_t step) {
  const auto spread = [](float a, float b, float c, float* to, ptrdiff_t by) {
    to[0] = a;
    to[by] = 0.5f * (a + b + c);
    to[2 * by] = 0.5f * (a - b + c);
    to[3 * by] = c;
  };
  float rows[4][3];
  for (int x = 0; x < 3; ++x) spread(kernel[x], kernel[3 + x], kernel[6 + x], &rows[0][x], 3);
  for (int y = 0; y < 4; ++y) spread(rows[y][0], rows[y][1], rows[y][2], points + 4 * y * step, step);
}

// The transpose of that, for gradients.
void kernel_of(const float* points, ptrdiff_t step, float* kernel) {
  const auto gather = [](float a, float b, float c, float d, float* to, ptrdiff_t by) {
    to[0] = a + 0.5f * (b + c);
    to[by] = 0.5f * (b - c);
    to[2 * by] = 0.5f * (b + c) + d;
  };
  float rows[3][4];
  for (int x = 0; x < 4; ++x)
    gather(points[x * step], points[(4 + x) * step], points[(8 + x) * step], points[(12 + x) * step], &rows[0][x], 4);
  for (int y = 0; y < 3; ++y) gather(rows[y][0], rows[y][1], rows[y][2], rows[y][3], kernel + 3 * y, 1);
}

class Convolution final : public Layer {
 public:
  Convolution(const LayerPlace& place, int filters)
      : kernels_(place.kernels),
        channels_(place.in.channels),
        height_(place.in.height),
        width_(place.in.width),
        filters_(filters),
        by_points_(points_pay(height_, width_, channels_, filters)),
        packed_(pairs() * (by_points_ ? 16 : 9)),
        sums_(by_points_ ? size_t{16} * ((static_cast<size_t>(channels_) + static_cast<size_t>(filters)) *
                                             static_cast<size_t>(place.lanes) +
                                         2 * kLanes + static_cast<size_t>(filters))
                         : (packed_.size() + static_cast<size_t>(filters)) * kLanes) {}

  Image shape() const override { return {nullptr, height_, width_, filters_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return {{filters_, channels_, 3, 3}, {filters_}}; }
  int border() const override { return 1; }
  bool wants_positive_gradient() const override { return true; }
  double multiply_adds() const override { return 9.0 * height_ * width_ * channels_ * filters_; }
  size_t memory() const override { return (packed_.size() + sums_.size()) * sizeof(float); }

  void forward(const Pass& pass) override {
    const float* weights = pass.weights[0].value;
    for (int f = 0; f < filters_; ++f)
      for (int c = 0; c < channels_; ++c) pack(weights + 9 * (f * channels_ + c), c * filters_ + f, false);
    convolve({packed_.data(), pass.weights[1].value, channels_, filters_}, pass.in, pass.out, true);
  }

  // The gradient has passed through the positive part already: see norm_pool.
  void backward(const Pass& pass) override {
    const Image& gradient = pass.out_gradient;
    if (by_points_) {
      kernels_.winograd_weights(pass.in, gradient, sums_.data(), packed_.data(), pass.weights[1].gradient);
      for (int i = 0; i < filters_ * channels_; ++i)
        kernel_of(packed_.data() + i, filters_ * channels_, pass.weights[0].gradient + 9 * i);
    } else {
      kernels_.convolve_weights(pass.in, gradient, sums_.data(), pass.weights[0].gradient, pass.weights[1].gradient);
    }
    if (!pass.in_gradient.data) return;
    for (int f = 0; f < filters_; ++f)
      for (int c = 0; c < channels_; ++c)
        pack(pass.weights[0].value + 9 * (f * channels_ + c), f * channels_ + c, true);
    convolve({packed_.data(), nullptr, filters_, channels_}, gradient, pass.in_gradient, false);
  }

 private:
  // Whether Winograd's algorithm is faster. Of a square it saves 20 of 36 products per channel and filter, for sums
  // that take as long as 75 products per channel and per filter (measured with AVX-512, and about so with AVX2).
  static bool points_pay(double height, double width, double channels, double filters) {
    const double squares = std::ceil(height / 2) * std::ceil(width / 2), pairs = channels * filters;
    return std::min(height, width) >= 2 &&
           squares * (16 * pairs + 75 * (channels + filters)) < 9 * height * width * pairs;
  }

  size_t pairs() const { return static_cast<size_t>(channels_) * static_cast<size_t>(filters_); }

  // One kernel, as number `pair` of those of a tap or point. turned: by 180 degrees.
  void pack(const float* kernel, int pair, bool turned) {
    float its[9];
    for (int tap = 0; tap < 9; ++tap) its[tap] = kernel[turned ? 8 - tap : tap];
    float* const to = packed_.data() + pair;
    const int step = channels_ * filters_;
    if (by_points_) return kernel_points(its, to, step);
    for (int tap = 0; tap < 9; ++tap) to[tap * step] = its[tap];
  }

  void convolve(const Matrix& m, const Image& in, const Image& out, bool relu) {
    by_points_ ? kernels_.winograd(m, in, out, relu, sums_.data()) : kernels_.convolve(m, in, out, relu);
  }

  const Kernels& kernels_;
  const int channels_, height_, width_, filters_;
  const bool by_points_;
  Floats packed_, sums_;
};

}  // namespace

std::unique_ptr<Layer> make_convolution(const LayerPlace& place, int filters) {
  if (place.input.tokens) throw std::invalid_argument("convolution: wants images");
  return std::make_unique<Convolution>(place, filters);
}

}  // namespace nos::child
