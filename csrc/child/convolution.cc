#include <stdexcept>

#include "layer.h"

namespace nos::child {
namespace {

class Convolution final : public Layer {
 public:
  Convolution(const LayerPlace& place, int filters)
      : kernels_(place.kernels),
        channels_(place.in.channels),
        height_(place.in.height),
        width_(place.in.width),
        filters_(filters),
        packed_(size_t{9} * static_cast<size_t>(channels_ * filters)),
        sums_(packed_.size() * kLanes) {}

  Image shape() const override { return {nullptr, height_, width_, filters_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return {{filters_, channels_, 3, 3}, {filters_}}; }
  int border() const override { return 1; }
  double multiply_adds() const override { return 9.0 * height_ * width_ * channels_ * filters_; }
  size_t memory() const override { return (packed_.size() + sums_.size()) * sizeof(float); }

  void forward(const Pass& pass) override {
    for (int f = 0; f < filters_; ++f)
      for (int c = 0; c < channels_; ++c)
        for (int tap = 0; tap < 9; ++tap)
          packed_.data()[(tap * channels_ + c) * filters_ + f] = pass.weights[0].value[(f * channels_ + c) * 9 + tap];
    kernels_.convolve({packed_.data(), pass.weights[1].value, channels_, filters_}, pass.in, pass.out, true);
  }

  // The gradient has passed through the positive part already: see norm_pool.
  void backward(const Pass& pass) override {
    kernels_.convolve_weights(pass.in, pass.out_gradient, sums_.data(), pass.weights[0].gradient,
                              pass.weights[1].gradient);
    if (!pass.in_gradient.data) return;
    for (int f = 0; f < filters_; ++f)  // the kernel is turned by 180 degrees
      for (int c = 0; c < channels_; ++c)
        for (int tap = 0; tap < 9; ++tap)
          packed_.data()[((8 - tap) * filters_ + f) * channels_ + c] =
              pass.weights[0].value[(f * channels_ + c) * 9 + tap];
    kernels_.convolve({packed_.data(), nullptr, filters_, channels_}, pass.out_gradient, pass.in_gradient, false);
  }

 private:
  const Kernels& kernels_;
  const int channels_, height_, width_, filters_;
  Floats packed_, sums_;
};

}  // namespace

std::unique_ptr<Layer> make_convolution(const LayerPlace& place, int filters) {
  if (place.input.tokens) throw std::invalid_argument("convolution: wants images");
  return std::make_unique<Convolution>(place, filters);
}

}  // namespace nos::child
