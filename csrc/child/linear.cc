#include <algorithm>

#include "layer.h"

namespace nos::child {
namespace {

// The numbers of an example are counted as the framework flattens them: of an image channels outermost, of a text
// positions.
class Linear final : public Layer {
 public:
  Linear(const LayerPlace& place, int outputs)
      : kernels_(place.kernels),
        in_(place.in),
        in_order_(place.input.tokens || in_.height * in_.width == 1 || in_.channels == 1),
        outputs_(outputs),
        inputs_(in_.height * in_.width * in_.channels),
        packed_(static_cast<size_t>(inputs_) * static_cast<size_t>(outputs)) {}

  Image shape() const override { return {nullptr, 1, 1, outputs_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return {{outputs_, inputs_}, {outputs_}}; }
  double multiply_adds() const override { return static_cast<double>(inputs_) * outputs_; }
  size_t memory() const override { return packed_.size() * sizeof(float); }

  void forward(const Pass& pass) override {
    pack(pass.weights[0].value);
    kernels_.multiply({packed_.data(), pass.weights[1].value, inputs_, outputs_}, flat(pass.in), pass.out);
  }

  void backward(const Pass& pass) override {
    const Weight& w = pass.weights[0];
    kernels_.multiply_weights(flat(pass.in), pass.out_gradient, in_order_ ? w.gradient : packed_.data(),
                              pass.weights[1].gradient);
    if (!in_order_) over_weights([&](int i, int k, int at) { w.gradient[at] = packed_.data()[k * inputs_ + i]; });
    if (!pass.in_gradient.data) return;
    if (!in_order_) over_weights([&](int i, int k, int at) { packed_.data()[k * inputs_ + i] = w.value[at]; });
    kernels_.multiply({in_order_ ? w.value : packed_.data(), nullptr, outputs_, inputs_}, pass.out_gradient,
                      flat(pass.in_gradient));
  }

 private:
  Image flat(const Image& image) const { return {image.data, 1, 1, inputs_, 0, image.lanes}; }

  // The framework's [output][input] as [input][output], square by square for the cache.
  void pack(const float* matrix) {
    if (!in_order_) return over_weights([&](int i, int k, int at) { packed_.data()[i * outputs_ + k] = matrix[at]; });
    constexpr int kSquare = 16;
    for (int k0 = 0; k0 < outputs_; k0 += kSquare)
      for (int i0 = 0; i0 < inputs_; i0 += kSquare)
        for (int i = i0; i < std::min(i0 + kSquare, inputs_); ++i)
          for (int k = k0; k < std::min(k0 + kSquare, outputs_); ++k)
            packed_.data()[i * outputs_ + k] = matrix[k * inputs_ + i];
  }

  // visit(number of the input in memory, output, place in the framework's matrix)
  template <class Visit>
  void over_weights(const Visit& visit) const {
    const int places = in_.height * in_.width;
    for (int k = 0; k < outputs_; ++k)
      for (int place = 0; place < places; ++place)
        for (int c = 0; c < in_.channels; ++c) visit(place * in_.channels + c, k, k * inputs_ + c * places + place);
  }

  const Kernels& kernels_;
  const Image in_;
  const bool in_order_;  // inputs lie in memory as the framework counts them
  const int outputs_, inputs_;
  Floats packed_;
};

}  // namespace

std::unique_ptr<Layer> make_linear(const LayerPlace& place, int outputs) {
  return std::make_unique<Linear>(place, outputs);
}

}  // namespace nos::child
