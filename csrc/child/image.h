// Owns Image and the other plain structs that layers hand to kernels. Kernels are compiled once per instruction set, so
// nothing in here may leave a function behind that another part of the program could call by mistake: all is inlined.
#pragma once
#include <cstddef>
#include <cstdint>

#define NOS_CHILD_INLINE inline __attribute__((always_inline))

namespace nos::child {

inline constexpr int kLanes = 16;  // of a logical vector: examples of the batch side by side

// An activation: [row][column][channel][lane]. lanes: examples, padded to a multiple of kLanes. border: rows and
// columns of zeros around it. A list of numbers is an image of one pixel.
struct Image {
  float* data;
  int height, width, channels, border, lanes;

  // Channel 0 at row y and column x, both from -border on.
  NOS_CHILD_INLINE float* at(int y, int x) const {
    return data + (static_cast<ptrdiff_t>(y + border) * (width + 2 * border) + x + border) * channels * lanes;
  }
};

// Weights of a product, in the order in which a kernel takes them: [tap][channel][filter].
struct Matrix {
  const float* weights;
  const float* start;  // per filter: what the sums begin with; null: 0
  int channels, filters;
};

// What normalisation knows of one channel.
struct Channel {
  float mean, inverse;         // inverse: of the standard deviation
  float scale, shift;          // normalised = scale * x + shift
  float mean_gradient, slope;  // backward: of the gradients; of the gradients against the distance from the mean
};

struct Loss {
  double sum;       // nats, over the targets that count
  int64_t right;    // guessed
  int64_t counted;  // targets
};

struct SequenceKernels;  // sequence.h

struct Kernels {
  const char* name;
  const SequenceKernels* sequence;

  // out = sum over the 3x3 neighbours and channels of weights * in; its positive part with relu.
  void (*convolve)(const Matrix& m, const Image& in, const Image& out, bool relu);
  // The gradient of weights [filter][channel][tap] and of the bias. sums: memory for 9 * channels * filters vectors.
  void (*convolve_weights)(const Image& in, const Image& gradient, float* sums, float* weights, float* bias);

  // out[filter] = sum over channels of weights * in[channel], of one pixel.
  void (*multiply)(const Matrix& m, const Image& in, const Image& out);
  // products[filter][channel] = sum over examples of gradient * in; bias[filter] that of gradient.
  void (*multiply_weights)(const Image& in, const Image& gradient, float* products, float* bias);

  // Per channel: the sum of x, or with `channels` of its squared distance from their mean. valid: 1 per example, else
  // 0.
  void (*sum_channels)(const Image& in, const Channel* channels, const float* valid, float* sums, float* out);
  // Normalises and takes the maxima of 2x2 squares.
  void (*norm_pool)(const Image& in, const Channel* channels, const Image& out);
  // Per channel: the sum of the gradient, and of the gradient times the distance from the mean.
  void (*norm_pool_sums)(const Image& in, const Channel* channels, const Image& out, const Image& gradient, float* sums,
                         float* of_gradient, float* of_product);
  // The gradient of the input, and through the ReLU that the input is the result of.
  void (*norm_pool_input)(const Image& in, const Channel* channels, const Image& out, const Image& gradient,
                          const float* valid, const Image& to);

  void (*relu)(const float* in, float* out, ptrdiff_t count);
  void (*relu_input)(const float* out, const float* gradient, float* to, ptrdiff_t count);

  // logits: [position][class][lane]; classes: [position][lane], of the first `examples` lanes, negative ones do not
  // count. probabilities: becomes the softmax, then, with a gradient, the gradient of the mean loss.
  Loss (*cross_entropy)(const Image& logits, const int32_t* classes, int examples, bool gradient, float* probabilities);
};

}  // namespace nos::child
