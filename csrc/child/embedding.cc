#include <algorithm>

#include "layer.h"

namespace nos::child {
namespace {

class Embedding final : public Layer {
 public:
  Embedding(const LayerPlace& place, int width)
      : tokens_(place.input.tokens), vocabulary_(place.input.vocabulary), width_(width) {}
  Image shape() const override { return {nullptr, 1, tokens_, width_, 0, 0}; }
  bool reads_tokens() const override { return true; }
  std::vector<std::vector<int64_t>> weights() const override { return {{vocabulary_, width_}}; }

  void forward(const Pass& pass) override {
    visit(pass, pass.out, pass.out.lanes, pass.weights[0].value, [](float& row, float& lane) { lane = row; });
  }
  // Tokens come more than once: one example after the other.
  void backward(const Pass& pass) override {
    float* gradient = pass.weights[0].gradient;
    std::fill_n(gradient, static_cast<size_t>(vocabulary_) * static_cast<size_t>(width_), 0.0f);
    visit(pass, pass.out_gradient, pass.examples, gradient, [](float& row, float& lane) { row += lane; });
  }

 private:
  // work(number of a token's row, the same of an example)
  template <class Work>
  void visit(const Pass& pass, const Image& image, int examples, float* rows, const Work& work) const {
    for (int position = 0; position < tokens_; ++position)
      for (int lane = 0; lane < examples; ++lane) {
        float* row = rows + ptrdiff_t{1} * pass.tokens[position * image.lanes + lane] * width_;
        float* its = image.data + ptrdiff_t{1} * position * width_ * image.lanes + lane;
        for (int e = 0; e < width_; ++e) work(row[e], its[e * image.lanes]);
      }
  }
  const int tokens_, vocabulary_, width_;
};

}  // namespace

std::unique_ptr<Layer> make_embedding(const LayerPlace& place, int width) {
  return std::make_unique<Embedding>(place, width);
}

}  // namespace nos::child
