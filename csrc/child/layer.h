// Owns Layer: a part of a child network for one batch size, forward and backward. A child trains by calling its layers
// in order, so a layer knows nothing of the others but the shapes beside it.
#pragma once
#include <initializer_list>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <vector>

#include "image.h"

namespace nos::child {

// The error that a network needs more memory than its kernels can count the numbers of.
class TooLarge : public std::bad_alloc {
 public:
  const char* what() const noexcept override {
    return "the network needs more than 8 GB in one piece (2^31 numbers); pass fewer examples per batch or smaller "
           "layers";
  }
};
// Throws TooLarge where a product of sizes is 2^31 or more. Kernels count numbers with an int.
inline void require_countable(std::initializer_list<int> sizes) {
  double product = 1;
  for (const int size : sizes) product *= size;
  if (product >= 2147483648.0) throw TooLarge();
}

// A list of numbers that starts at a cache line and holds zeros at first. It has fewer than 2^31 of them.
class Floats {
 public:
  Floats() = default;
  explicit Floats(size_t count);
  float* data() { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

// A tensor that is learned, and the gradient of the loss by it. Both lie in memory as torch lays such tensors out.
struct Weight {
  float *value, *gradient;
};

// What a batch is made of: images of numbers, or tokens.
struct Input {
  int channels = 0, height = 0, width = 0;  // of images
  int tokens = 0, vocabulary = 0;           // of texts
};

// What a layer is given in a step.
struct Pass {
  Image in, out;       // activations
  Image out_gradient;  // backward: read; its border is zero
  Image in_gradient;   // backward: written; no data where nobody reads it; for in_place() the memory of `in`
  std::span<const Weight> weights;
  std::span<float* const> running;
  const int32_t* tokens;  // [position][lane]; of texts
  int examples;           // in the first lanes
  bool training;
  float momentum;  // of this batch in the running numbers
};

// A layer computes its result from its input (forward), and from the gradient of the loss by its result the gradients
// by its weights and by its input (backward). backward() follows the forward() of the same batch.
class Layer {
 public:
  virtual ~Layer() = default;
  virtual Image shape() const = 0;  // of its result: without data, border and lanes
  virtual std::vector<std::vector<int64_t>> weights() const { return {}; }
  virtual std::vector<int64_t> running() const { return {}; }  // numbers that evaluation uses in place of the batch's
  virtual bool reads_tokens() const { return false; }          // in place of an activation
  virtual int border() const { return 0; }  // that it reads around its input, and around its result's gradient
  // Whether the gradient that backward() is given must have passed through the positive part of its result already, and
  // whether backward() passes the gradient of its input through the positive part of that input. Where a layer wants
  // the one, the layer behind it must do the other.
  virtual bool wants_positive_gradient() const { return false; }
  virtual bool gives_positive_gradient() const { return false; }
  // Whether the gradient of its input may lie in the memory of the input, which nobody reads after its backward pass.
  virtual bool in_place() const { return false; }
  virtual double multiply_adds() const { return 0; }  // forward, of one example, without shortcuts
  virtual size_t memory() const { return 0; }         // bytes of its own
  virtual void forward(const Pass& pass) = 0;
  virtual void backward(const Pass& pass) = 0;
};

struct LayerSpec {
  enum Kind {
#define NOS_LAYER(id, name, number, doc) id,
#include "layers.def"
#undef NOS_LAYER
  } kind;
  int number;  // see layers.def
};
struct LayerInfo {
  std::string_view name, number, doc;
};
std::span<const LayerInfo> layer_table();

// in: the shape of what it reads. Throws std::invalid_argument where the layer cannot follow it.
struct LayerPlace {
  const Kernels& kernels;
  Input input;
  Image in;
  int lanes;
};
#define NOS_LAYER(id, name, number, doc) std::unique_ptr<Layer> make_##id(const LayerPlace& place, int number_);
#include "layers.def"
#undef NOS_LAYER
// An embedding and the linear layer after it, in one, for where a batch has many examples for each token.
std::unique_ptr<Layer> make_text_linear(const LayerPlace& place, int width, int outputs);

// The kernels of this machine, or null where it has no fused multiply-add.
const Kernels* kernels();

}  // namespace nos::child
