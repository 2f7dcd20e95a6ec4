#include <algorithm>
#include <stdexcept>

#include "sequence.h"

namespace nos::child {
namespace {

// Gated recurrent units over a whole text, from a state of zeros: r and z gate, n is the fresh state,
//   n = tanh(W x + b + r * (U h + c)),  h' = n + z * (h - n).
// The framework has the rows of its matrices in the order r z n. Here the sums that one position keeps lie in the order
// n r z q, with q = U h + c of the fresh state: products with the input, and their gradients, are n r z, and those with
// the state are r z q.
class Gru final : public Layer {
 public:
  Gru(const LayerPlace& place, int units)
      : kernels_(*place.kernels.sequence),
        length_(place.in.width),
        channels_(place.in.channels),
        units_(units),
        lanes_(place.lanes),
        input_(channels_, 3 * units),
        recurrent_(units, 3 * units),
        input_back_(3 * units, channels_),
        recurrent_back_(3 * units, units),
        start_(size((3 * units + kPanel - 1) / kPanel * kPanel)),
        gates_(size(length_) * size(4 * units) * size(lanes_)),
        zeros_(size(std::max(channels_, units)) * size(lanes_)),
        carry_(size(units) * size(lanes_)),
        sums_(size(4 * units)),
        turned_(size(kTurned) * size(row_of(std::max(channels_, units)))),
        products_(size(3 * units) * size(row_of(std::max(channels_, units)))) {}

  Image shape() const override { return {nullptr, 1, length_, units_, 0, 0}; }
  std::vector<std::vector<int64_t>> weights() const override {
    return {{3 * units_, channels_}, {3 * units_, units_}, {3 * units_}, {3 * units_}};
  }
  double multiply_adds() const override { return 3.0 * length_ * units_ * (channels_ + units_); }
  size_t memory() const override {
    return (input_.size() + recurrent_.size() + input_back_.size() + recurrent_back_.size() + start_.size() +
            gates_.size() + zeros_.size() + carry_.size() + sums_.size() + turned_.size() + products_.size()) *
           sizeof(float);
  }

  void forward(const Pass& pass) override {
    const float *bias = pass.weights[2].value, *state_bias = pass.weights[3].value;
    input_.pack(pass.weights[0].value, [this](int f, int c) { return theirs(f) * channels_ + c; });
    recurrent_.pack(pass.weights[1].value, [this](int f, int c) { return f * units_ + c; });
    for (int f = 0; f < 3 * units_; ++f)
      start_.data()[f] = f < units_ ? bias[theirs(f)] : bias[theirs(f)] + state_bias[theirs(f)];
    kernels_.multiply(input_.data(), start_.data(), channels_, 3 * units_, strip(pass.in), gates(0, 0), length_,
                      lanes_);
    const Strip out = strip(pass.out);
    for (int p = 0; p < length_; ++p) {
      float* q = gates(3 * units_, p).data;
      for (int u = 0; u < units_; ++u) std::fill_n(q + u * lanes_, lanes_, state_bias[2 * units_ + u]);
      if (p)
        kernels_.multiply(recurrent_.data(), nullptr, units_, 3 * units_, {out.at(p - 1), 0}, gates(units_, p), 1,
                          lanes_);
      kernels_.gate(gates(0, p).data, p ? out.at(p - 1) : zeros_.data(), out.at(p), count());
    }
  }

  // Back through time; what is left then are sums over all positions.
  void backward(const Pass& pass) override {
    recurrent_back_.pack(pass.weights[1].value, [this](int unit, int f) { return f * units_ + unit; });
    const Strip out = strip(pass.out), gradient = strip(pass.out_gradient);
    std::fill_n(carry_.data(), carry_.size(), 0.0f);
    for (int p = length_ - 1; p >= 0; --p) {
      kernels_.gate_input(gates(0, p).data, p ? out.at(p - 1) : zeros_.data(), gradient.at(p), carry_.data(), count());
      if (p)
        kernels_.multiply(recurrent_back_.data(), nullptr, 3 * units_, units_, gates(units_, p), {carry_.data(), 0}, 1,
                          lanes_);
    }
    if (pass.in_gradient.data) {
      input_back_.pack(pass.weights[0].value, [this](int c, int f) { return theirs(f) * channels_ + c; });
      kernels_.multiply(input_back_.data(), zeros_.data(), 3 * units_, channels_, gates(0, 0), strip(pass.in_gradient),
                        length_, lanes_);
    }
    kernels_.multiply_weights(strip(pass.in), channels_, gates(0, 0), 3 * units_, length_, lanes_, pass.examples,
                              turned_.data(), products_.data());
    for (int f = 0; f < 3 * units_; ++f)
      std::copy_n(products_.data() + f * row_of(channels_), channels_,
                  pass.weights[0].gradient + theirs(f) * channels_);
    kernels_.multiply_weights(out, units_, gates(units_, 1), 3 * units_, length_ - 1, lanes_, pass.examples,
                              turned_.data(), products_.data());
    for (int f = 0; f < 3 * units_; ++f)
      std::copy_n(products_.data() + f * row_of(units_), units_, pass.weights[1].gradient + f * units_);
    kernels_.sum_rows(gates(0, 0), 4 * units_, length_, lanes_, sums_.data());
    for (int f = 0; f < 3 * units_; ++f) pass.weights[2].gradient[theirs(f)] = sums_.data()[f];
    std::copy_n(sums_.data() + units_, 3 * units_, pass.weights[3].gradient);
  }

 private:
  static size_t size(int n) { return static_cast<size_t>(n); }
  ptrdiff_t count() const { return ptrdiff_t{1} * units_ * lanes_; }
  // The framework's number of row f in the order n r z.
  int theirs(int f) const { return f < units_ ? f + 2 * units_ : f - units_; }
  Strip strip(const Image& image) const { return {image.data, ptrdiff_t{1} * image.channels * lanes_}; }
  Strip gates(int row, int position) {
    return {gates_.data() + (ptrdiff_t{4} * units_ * position + row) * lanes_, 4 * count()};
  }

  const SequenceKernels& kernels_;
  const int length_, channels_, units_, lanes_;
  Panels input_, recurrent_, input_back_, recurrent_back_;
  Floats start_, gates_, zeros_, carry_, sums_, turned_, products_;
};

}  // namespace

std::unique_ptr<Layer> make_gru(const LayerPlace& place, int units) {
  if (!place.input.tokens || place.in.width != place.input.tokens)
    throw std::invalid_argument("gru: wants a text, as embedding gives it");
  return std::make_unique<Gru>(place, units);
}

}  // namespace nos::child
