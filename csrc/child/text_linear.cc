#include <algorithm>

#include "panels.h"

namespace nos::child {
namespace {

// An embedding and the linear layer after it. A batch holds few different tokens at each position, so the part of the
// matrix that belongs to a position is multiplied with the embedding once for every token, and an example adds up one
// row of the products for each of its positions. Backward, the gradients of all examples with one token at a position
// are summed before they meet the matrix and the embedding.
class TextLinear final : public Layer {
 public:
  TextLinear(const LayerPlace& place, int width, int outputs)
      : kernels_(place.kernels),
        length_(place.input.tokens),
        vocabulary_(place.input.vocabulary),
        width_(width),
        outputs_(outputs),
        inputs_(length_ * width),
        lanes_(place.lanes),
        row_(length_ * row_of(outputs) + kLanes),
        nothing_(static_cast<size_t>(inputs_)),
        embedding_(floats(width, vocabulary_)),
        matrix_(floats(width, row_)),
        matrix_gradient_(floats(width, row_)),
        start_(static_cast<size_t>(row_of(outputs))),
        table_(floats(vocabulary_, row_)),
        turned_(floats(lanes_, row_of(outputs))),
        unused_(static_cast<size_t>(vocabulary_)),
        rows_(static_cast<size_t>(row_of(outputs)), nothing_.data()) {
    for (int position = 0; position < length_; ++position)
      for (int c = 0; c < width; ++c) places_.push_back(at(c, row_, position * row_of(outputs)));
  }

  Image shape() const override { return {nullptr, 1, 1, outputs_, 0, 0}; }
  bool reads_tokens() const override { return true; }
  std::vector<std::vector<int64_t>> weights() const override {
    return {{vocabulary_, width_}, {outputs_, inputs_}, {outputs_}};
  }
  // Of a first layer a step is counted as twice its forward pass; but the matrix's input has a gradient here.
  double multiply_adds() const override { return 1.5 * inputs_ * outputs_; }
  size_t memory() const override {
    return (nothing_.size() + embedding_.size() + matrix_.size() + matrix_gradient_.size() + start_.size() +
            table_.size() + turned_.size() + unused_.size()) *
               sizeof(float) +
           rows_.size() * sizeof(float*) + places_.size() * sizeof(ptrdiff_t);
  }

  void forward(const Pass& pass) override {
    const float* embedding = pass.weights[0].value;
    for (int token = 0; token < vocabulary_; ++token)
      for (int c = 0; c < width_; ++c) embedding_.data()[at(c, vocabulary_, token)] = embedding[at(token, width_, c)];
    kernels_.gather(rows_of(pass.weights[1].value), inputs_, places_.data(), row_of(outputs_), matrix_.data());
    std::copy_n(pass.weights[2].value, outputs_, start_.data());
    kernels_.multiply({embedding_.data(), nullptr, width_, vocabulary_}, rows(matrix_, width_),
                      rows(table_, vocabulary_));
    kernels_.take_sums(table_.data(), row_, start_.data(), outputs_, pass.tokens, length_, lanes_, pass.out.data);
  }

  void backward(const Pass& pass) override {
    const float* gradient = pass.out_gradient.data;
    kernels_.sum_positions(strip(pass.out_gradient), outputs_, 1, lanes_, pass.weights[2].gradient);
    kernels_.collect_sums(gradient, outputs_, lanes_, pass.examples, pass.tokens, length_, vocabulary_, turned_.data(),
                          table_.data(), row_);
    kernels_.multiply_weights(rows(matrix_, width_), rows(table_, vocabulary_), pass.weights[0].gradient,
                              unused_.data());
    kernels_.multiply({pass.weights[0].value, nullptr, vocabulary_, width_}, rows(table_, vocabulary_),
                      rows(matrix_gradient_, width_));
    std::fill_n(pass.weights[1].gradient, floats(outputs_, inputs_), 0.0f);
    kernels_.scatter_add(matrix_gradient_.data(), places_.data(), inputs_, outputs_, rows_of(pass.weights[1].gradient));
  }

 private:
  // The kernels multiply lists of lanes; here an output at a position takes the place of an example.
  Image rows(Floats& memory, int count) { return {memory.data(), 1, 1, count, 0, row_}; }
  // Of the framework's matrix [output][input]; those that only fill the lanes hold zeros.
  float* const* rows_of(float* matrix) {
    for (int k = 0; k < outputs_; ++k) rows_[static_cast<size_t>(k)] = matrix + at(k, inputs_, 0);
    return rows_.data();
  }

  const Kernels& kernels_;
  const int length_, vocabulary_, width_, outputs_, inputs_, lanes_;
  const int row_;     // [position][output], and a cache line by which neighbouring rows miss each other's cache sets
  Floats nothing_;    // a row of the framework's matrix that is not there
  Floats embedding_;  // [number][token]
  Floats matrix_, matrix_gradient_;  // [number of the embedding][position][output]
  Floats start_;
  Floats table_;   // [token][position][output]: the products, then the gradients
  Floats turned_;  // [example][output]
  Floats unused_;
  std::vector<float*> rows_;
  std::vector<ptrdiff_t> places_;  // of an input in matrix_
};

}  // namespace

std::unique_ptr<Layer> make_text_linear(const LayerPlace& place, int width, int outputs) {
  // The rows of the table, of which each is a cache line longer than its products.
  require_countable({place.input.tokens + 1, row_of(outputs), std::max(place.input.vocabulary, width)});
  return std::make_unique<TextLinear>(place, width, outputs);
}

}  // namespace nos::child
