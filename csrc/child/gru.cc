#include "recurrence.h"

namespace nos::child {
namespace {

class Gru final : public Layer {
 public:
  Gru(const LayerPlace& place, int units)
      : kernels_(place.kernels),
        length_(place.in.width),
        inputs_(place.in.channels),
        units_(units),
        lanes_(place.lanes),
        recurrence_(place, units),
        forward_(inputs_, 3 * units),
        back_(3 * units, inputs_),
        start_(in_panels(3 * units)),
        zeros_(in_panels(inputs_)),
        turned_(floats(kTurned, row_of(inputs_))),
        products_(floats(3 * units, row_of(inputs_))) {}

  Image shape() const override { return {nullptr, 1, length_, units_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override { return Recurrence::weights(inputs_, units_); }
  double multiply_adds() const override { return 3.0 * length_ * units_ * inputs_ + recurrence_.multiply_adds(); }
  size_t memory() const override {
    return recurrence_.memory() +
           (forward_.size() + back_.size() + start_.size() + zeros_.size() + turned_.size() + products_.size()) *
               sizeof(float);
  }

  void forward(const Pass& pass) override {
    recurrence_.pack_input(pass.weights, forward_, start_.data());
    kernels_.multiply_positions(forward_.data(), start_.data(), inputs_, 3 * units_, strip(pass.in),
                                recurrence_.input(), length_, lanes_);
    recurrence_.forward(pass.weights, strip(pass.out));
  }

  void backward(const Pass& pass) override {
    recurrence_.backward(pass.weights, strip(pass.out), strip(pass.out_gradient), pass.examples);
    kernels_.position_weights(strip(pass.in), inputs_, recurrence_.input(), 3 * units_, length_, lanes_, pass.examples,
                              turned_.data(), products_.data());
    recurrence_.unpack_input(products_.data(), inputs_, pass.weights[0].gradient);
    recurrence_.pack_input_back(pass.weights, back_);
    kernels_.multiply_positions(back_.data(), zeros_.data(), 3 * units_, inputs_, recurrence_.input(),
                                strip(pass.in_gradient), length_, lanes_);
  }

 private:
  const Kernels& kernels_;
  const int length_, inputs_, units_, lanes_;
  Recurrence recurrence_;
  Panels forward_, back_;
  Floats start_, zeros_, turned_, products_;
};

}  // namespace

std::unique_ptr<Layer> make_gru(const LayerPlace& place, int units) {
  require_text(place, "gru");
  return std::make_unique<Gru>(place, units);
}

}  // namespace nos::child
