// Owns Child: a network trained by own kernels, with its rule. One thread works on a child at a time; different
// children are independent. Its numbers depend on network, data, order, rule and seed alone, not on the machine's
// vectors.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "layer.h"

namespace nos::child {

// Examples in the caller's memory. images: [example][channel][row][column], or tokens: [example][position]. classes:
// [example][target]; a negative one does not count.
struct Examples {
  const float* images = nullptr;
  const int32_t* tokens = nullptr;
  const int32_t* classes = nullptr;
  int64_t count = 0;
};

class Child {
 public:
  // batch: examples of a step. Throws std::invalid_argument for layers that cannot follow each other, or where this
  // machine has no kernels.
  Child(const Input& input, std::span<const LayerSpec> layers, int batch);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int batch() const { return batch_; }
  int classes() const;
  int targets() const;  // of an example: 1, or where every position of a text is asked one each
  const std::vector<std::vector<int64_t>>& shapes() const { return shapes_; }  // of the weights
  std::span<const Weight> weights() const { return weights_; }
  std::span<float* const> running() const { return running_; }
  const std::vector<int64_t>& running_sizes() const { return running_sizes_; }
  size_t memory() const;         // bytes
  double multiply_adds() const;  // of one step: forward and backward

  // The loss of a batch, and its gradients. index: numbers of examples, at most batch().
  Loss gradients(const Examples& data, std::span<const int64_t> index, float momentum);
  // Over examples [first, last), with the running statistics.
  Loss evaluate(const Examples& data, int64_t first, int64_t last);

 private:
  void gather(const Examples& data, const int64_t* index, int64_t first, int examples);
  void forward(int examples, bool training, float momentum);
  Loss loss(int examples, bool gradient);

  const Input input_;
  const Kernels& kernels_;
  const int batch_, lanes_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<int64_t> running_sizes_;
  std::vector<Weight> weights_;
  std::vector<float*> running_;
  Floats values_, gradients_, running_memory_, probabilities_;
  std::vector<Floats> memory_;      // of the activations and their gradients
  std::vector<Image> activations_;  // [0] the input, then each layer's result
  std::vector<Image> gradient_images_;
  std::vector<size_t> first_weight_, first_running_;  // of each layer
  std::vector<int32_t> tokens_, classes_;
  std::vector<ptrdiff_t> places_;   // of an image's numbers in the first activation
  std::vector<const float*> rows_;  // the image in each lane
  Floats nothing_;                  // the image in a lane without an example
};

}  // namespace nos::child
