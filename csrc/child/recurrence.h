// Owns Recurrence: gated recurrent units over a whole text, from a state of zeros. With the gates r and z and the fresh
// state n, a step is
//   n = tanh(W x + b + r * (U h + c)),  h' = n + z * (h - n).
// The owner computes W x + b, of an activation (gru.cc) or of a token (text_gru.cc).
#pragma once
#include "panels.h"

namespace nos::child {

class Recurrence {
 public:
  Recurrence(const LayerPlace& place, int units);

  // Returns the shapes of the four weights W, U, b and c of units that read `inputs` numbers. Each has the rows of r,
  // then those of z and n, as torch's GRU has.
  static std::vector<std::vector<int64_t>> weights(int inputs, int units);
  // Packs W with its rows in the order of input(), n r z. `start` gets b in the same order, and for r and z also c,
  // which is added to the same sums.
  void pack_input(std::span<const Weight> weights, Panels& panels, float* start) const;
  // Packs the transpose of W for the gradient of the input, whose channels are in the order of input().
  void pack_input_back(std::span<const Weight> weights, Panels& panels) const;
  // Copies products, whose rows are in the order of input(), to the gradient of W.
  void unpack_input(const float* products, int inputs, float* gradient) const;

  // The rows n r z of every position. The owner fills them with the sums W x + b before forward(), and finds their
  // gradients in them after backward().
  Strip input() { return gates(0, 0); }
  // Writes the states, [position][unit][lane].
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
