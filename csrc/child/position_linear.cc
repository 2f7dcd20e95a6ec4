#include <algorithm>

#include "panels.h"

namespace nos::child {
namespace {

class PositionLinear final : public Layer {
 public:
  PositionLinear(const LayerPlace& place, int outputs)
      : kernels_(place.kernels),
        length_(place.in.width),
        inputs_(place.in.channels),
        outputs_(outputs),
        lanes_(place.lanes),
        forward_(inputs_, outputs),
        back_(outputs, inputs_),
        start_(in_panels(outputs)),
        zeros_(in_panels(inputs_)),
        turned_(floats(kTurned, row_of(inputs_))),
        products_(floats(outputs, row_of(inputs_))) {}

  Image shape() const override { return {nullptr, 1, length_, outputs_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return {{outputs_, inputs_}, {outputs_}}; }
  double multiply_adds() const override { return 1.0 * length_ * inputs_ * outputs_; }
  size_t memory() const override {
    return (forward_.size() + back_.size() + start_.size() + zeros_.size() + turned_.size() + products_.size()) *
           sizeof(float);
  }

  void forward(const Pass& pass) override {
    forward_.pack(pass.weights[0].value, [this](int k, int c) { return at(k, inputs_, c); });
    std::copy_n(pass.weights[1].value, outputs_, start_.data());
    kernels_.multiply_positions(forward_.data(), start_.data(), inputs_, outputs_, strip(pass.in), strip(pass.out),
                                length_, lanes_);
  }

  void backward(const Pass& pass) override {
    const Strip gradient = strip(pass.out_gradient);
    kernels_.position_weights(strip(pass.in), inputs_, gradient, outputs_, length_, lanes_, pass.examples,
                              turned_.data(), products_.data());
    for (int k = 0; k < outputs_; ++k)
      std::copy_n(products_.data() + at(k, row_of(inputs_), 0), inputs_, pass.weights[0].gradient + at(k, inputs_, 0));
    kernels_.sum_positions(gradient, outputs_, length_, lanes_, pass.weights[1].gradient);
    if (!pass.in_gradient.data) return;
    back_.pack(pass.weights[0].value, [this](int c, int k) { return at(k, inputs_, c); });
    kernels_.multiply_positions(back_.data(), zeros_.data(), outputs_, inputs_, gradient, strip(pass.in_gradient),
                                length_, lanes_);
  }

 private:
  const Kernels& kernels_;
  const int length_, inputs_, outputs_, lanes_;
  Panels forward_, back_;
  Floats start_, zeros_, turned_, products_;
};

}  // namespace

std::unique_ptr<Layer> make_position_linear(const LayerPlace& place, int outputs) {
  require_text(place, "position_linear");
  return std::make_unique<PositionLinear>(place, outputs);
}

}  // namespace nos::child
