#include <stdexcept>

#include "layer.h"

namespace nos::child {
namespace {

class Relu final : public Layer {
 public:
  explicit Relu(const LayerPlace& place)
      : kernels_(place.kernels), in_(place.in), count_(ptrdiff_t{1} * in_.width * in_.channels * place.lanes) {}
  Image shape() const override { return {nullptr, 1, in_.width, in_.channels, 0, 0}; }
  void forward(const Pass& pass) override { kernels_.relu(pass.in.data, pass.out.data, count_); }
  void backward(const Pass& pass) override {
    if (pass.in_gradient.data)
      kernels_.relu_input(pass.out.data, pass.out_gradient.data, pass.in_gradient.data, count_);
  }

 private:
  const Kernels& kernels_;
  const Image in_;
  const ptrdiff_t count_;
};

}  // namespace

std::unique_ptr<Layer> make_relu(const LayerPlace& place, int) {
  if (place.in.height * place.in.width != 1 && !place.input.tokens)
    throw std::invalid_argument("relu: wants a list of numbers or a text; a convolution has its own");
  return std::make_unique<Relu>(place);
}

}  // namespace nos::child
