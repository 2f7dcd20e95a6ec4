#include <algorithm>

#include "layer.h"

namespace nos::child {
namespace {

class Embedding final : public Layer {
 public:
  Embedding(const LayerPlace& place, int width)
      : kernels_(place.kernels),
        tokens_(place.input.tokens),
        vocabulary_(place.input.vocabulary),
        width_(width),
        rows_(static_cast<size_t>(place.lanes)) {
    for (int e = 0; e < width; ++e) places_.push_back(ptrdiff_t{1} * e * place.lanes);
  }
  Image shape() const override { return {nullptr, 1, tokens_, width_, 0, 0}; }
  bool reads_tokens() const override { return true; }
  std::vector<std::vector<int64_t>> weights() const override { return {{vocabulary_, width_}}; }

  void forward(const Pass& pass) override {
    for (int position = 0; position < tokens_; ++position)
      kernels_.gather(rows(pass, pass.weights[0].value, position), width_, places_.data(), pass.out.lanes,
                      at(pass.out, position));
  }
  void backward(const Pass& pass) override {
    float* gradient = pass.weights[0].gradient;
    std::fill_n(gradient, static_cast<size_t>(vocabulary_) * static_cast<size_t>(width_), 0.0f);
    for (int position = 0; position < tokens_; ++position)
      kernels_.scatter_add(at(pass.out_gradient, position), places_.data(), width_, pass.examples,
                           rows(pass, gradient, position));
  }

 private:
  // Of the table, the row of each lane's token.
  float* const* rows(const Pass& pass, float* table, int position) {
    const int32_t* tokens = pass.tokens + ptrdiff_t{1} * position * pass.out.lanes;
    for (size_t lane = 0; lane < rows_.size(); ++lane) rows_[lane] = table + ptrdiff_t{1} * tokens[lane] * width_;
    return rows_.data();
  }
  float* at(const Image& image, int position) const {
    return image.data + ptrdiff_t{1} * position * width_ * image.lanes;
  }

  const Kernels& kernels_;
  const int tokens_, vocabulary_, width_;
  std::vector<float*> rows_;
  std::vector<ptrdiff_t> places_;  // of a row's numbers in its list of lanes
};

}  // namespace

std::unique_ptr<Layer> make_embedding(const LayerPlace& place, int width) {
  return std::make_unique<Embedding>(place, width);
}

}  // namespace nos::child
