// Owns Recurrence: gated recurrent units over a whole text, from a state of zeros. r and z gate, n is the fresh state,
//   n = tanh(W x + b + r * (U h + c)),  h' = n + z * (h - n).
// What W x + b is of is its owner's business: an activation (gru.cc) or a token (text_gru.cc).
#pragma once
#include "panels.h"

namespace nos::child {

class Recurrence {
 public:
  Recurrence(const LayerPlace& place, int units);

  // The four weights of units that read `inputs` numbers, in the framework's order: W, U, b, c. Each has rows r z n.
  static std::vector<std::vector<int64_t>> weights(int inputs, int units);
  // W in panels whose rows are those of input(), and the other way round; the same of b, with what c adds to r and z.
  void pack_input(std::span<const Weight> weights, Panels& panels, float* start) const;
  void pack_input_back(std::span<const Weight> weights, Panels& panels) const;
  // Rows of the gradient of W, from products whose rows are those of input().
  void unpack_input(const float* products, int inputs, float* gradient) const;

  // Rows n r z, which forward() finds filled with the sums W x + b, and backward() leaves filled with their gradients.
  Strip input() { return gates(0, 0); }
  // out: [position][unit][lane], the states.
  void forward(std::span<const Weight> weights, Strip out);
  // Writes the gradients of U, b and c.
  void backward(std::span<const Weight> weights, Strip out, Strip gradient, int examples);

  size_t memory() const;  // bytes
  double multiply_adds() const { return 3.0 * length_ * units_ * units_; }

 private:
  ptrdiff_t count() const { return ptrdiff_t{1} * units_ * lanes_; }
  int theirs(int row) const { return row < units_ ? row + 2 * units_ : row - units_; }  // of a row of n r z
  // From one row on: n r z q, where q is U h + c of the fresh state, which r gates. So n r z are the sums of products
  // with the input, and r z q those of products with the state.
  Strip gates(int row, int position) {
    return {gates_.data() + (ptrdiff_t{4} * units_ * position + row) * lanes_, 4 * count()};
  }

  const Kernels& kernels_;
  const int length_, units_, lanes_;
  Panels forward_, back_;
  Floats gates_, zeros_, carry_, sums_, turned_, products_;
};

}  // namespace nos::child
