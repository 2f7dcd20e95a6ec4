#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "layer.h"

namespace nos::child {
namespace {

class NormPool final : public Layer {
 public:
  explicit NormPool(const LayerPlace& place)
      : kernels_(place.kernels),
        in_(place.in),
        lanes_(static_cast<size_t>(place.lanes)),
        sums_(2 * n() * kLanes),
        of_gradient_(n()),
        of_product_(n()),
        channels_(n()) {}

  Image shape() const override { return {nullptr, in_.height / 2, in_.width / 2, in_.channels, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return {{in_.channels}, {in_.channels}}; }
  std::vector<int64_t> running() const override { return {in_.channels, in_.channels}; }
  bool in_place() const override { return true; }
  bool gives_positive_gradient() const override { return true; }
  size_t memory() const override { return (lanes_.size() + sums_.size() + 2 * n()) * sizeof(float); }

  void forward(const Pass& pass) override {
    for (int l = 0; l < pass.in.lanes; ++l) lanes_.data()[l] = l < pass.examples ? 1.0f : 0.0f;
    valid_ = {pass.examples / kLanes * kLanes, lanes_.data()};
    if (pass.training) take_statistics(pass);
    for (size_t f = 0; f < n(); ++f) {
      Channel& c = channels_[f];
      if (!pass.training) set(c, pass.running[0][f], pass.running[1][f]);
      c.scale = pass.weights[0].value[f] * c.inverse;
      c.shift = pass.weights[1].value[f] - c.mean * c.scale;
    }
    kernels_.norm_pool(pass.in, channels_.data(), pass.out);
  }

  void backward(const Pass& pass) override {
    kernels_.norm_pool_sums(pass.in, channels_.data(), pass.out, pass.out_gradient, sums_.data(), of_gradient_.data(),
                            of_product_.data());
    const auto places = static_cast<float>(count(pass));
    for (size_t f = 0; f < n(); ++f) {
      Channel& c = channels_[f];
      const float scale_gradient = c.inverse * of_product_.data()[f];
      pass.weights[0].gradient[f] = scale_gradient;
      pass.weights[1].gradient[f] = of_gradient_.data()[f];
      c.mean_gradient = of_gradient_.data()[f] / places;
      c.slope = scale_gradient * c.inverse / places;
    }
    if (pass.in_gradient.data)
      kernels_.norm_pool_input(pass.in, channels_.data(), pass.out, pass.out_gradient, valid_, pass.in_gradient);
  }

 private:
  static constexpr double kEps = 1e-5;  // as in torch.nn.functional.batch_norm

  size_t n() const { return static_cast<size_t>(in_.channels); }
  double count(const Pass& pass) const { return static_cast<double>(pass.examples) * in_.height * in_.width; }
  static void set(Channel& c, float mean, double variance) {
    c.mean = mean;
    c.inverse = static_cast<float>(1 / std::sqrt(variance + kEps));
  }

  // In one pass over the distances from the mean of the first row: with those from 0 the variance would cancel where
  // the mean is large. Here it cannot lose more than a factor of the rows and one: the first of n rows, which lies d
  // off the mean, brings d^2 / n to the variance by itself.
  void take_statistics(const Pass& pass) {
    Image first_row = pass.in;
    first_row.height = 1;
    float *const distances = of_gradient_.data(), *const squares = of_product_.data();
    for (Channel& c : channels_) c.mean = 0;
    kernels_.sum_channels(first_row, channels_.data(), valid_, sums_.data(), distances, squares);
    const double places = count(pass), in_row = places / in_.height;
    for (size_t f = 0; f < n(); ++f) channels_[f].mean = static_cast<float>(static_cast<double>(distances[f]) / in_row);
    kernels_.sum_channels(pass.in, channels_.data(), valid_, sums_.data(), distances, squares);
    for (size_t f = 0; f < n(); ++f) {
      const double distance = static_cast<double>(distances[f]) / places;
      const double sum = std::max(static_cast<double>(squares[f]) - distance * distance * places, 0.0);
      set(channels_[f], static_cast<float>(static_cast<double>(channels_[f].mean) + distance), sum / places);
      const auto unbiased = static_cast<float>(sum / std::max(places - 1, 1.0));
      pass.running[0][f] += pass.momentum * (channels_[f].mean - pass.running[0][f]);
      pass.running[1][f] += pass.momentum * (unbiased - pass.running[1][f]);
    }
  }

  const Kernels& kernels_;
  const Image in_;
  Floats lanes_, sums_, of_gradient_, of_product_;
  Valid valid_{};
  std::vector<Channel> channels_;
};

}  // namespace

std::unique_ptr<Layer> make_norm_pool(const LayerPlace& place, int) {
  if (place.in.height < 2 || place.in.width < 2) throw std::invalid_argument("norm_pool: the image is below 2x2");
  return std::make_unique<NormPool>(place);
}

}  // namespace nos::child
