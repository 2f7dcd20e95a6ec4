// Owns Image and the other plain structs that layers hand to kernels. Kernels are compiled once per instruction set, so
// nothing in here may leave a function behind that another part of the program could call by mistake: all is inlined.
#pragma once
#include <cstddef>
#include <cstdint>

#define NOS_CHILD_INLINE inline __attribute__((always_inline))
#define NOS_CHILD_INLINE_LAMBDA __attribute__((always_inline))

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

// Some neighbouring channels at the positions of a text, which is an image of one row. step: from a position to the
// next, in floats.
struct Strip {
  float* data;
  ptrdiff_t step;

  NOS_CHILD_INLINE float* at(int position) const { return data + position * step; }
};

inline constexpr int kPanel = 8;  // filters that lie side by side in the weights of a product with a strip
inline constexpr int kTurned =
    32;  // examples that lie below one another while the gradient of weights is summed over a strip

// Returns how many numbers a row has in which channels lie in lanes: the channels, padded to a multiple of kLanes.
NOS_CHILD_INLINE int row_of(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Weights of a product, in the order in which a kernel takes them: [tap][channel][filter].
struct Matrix {
  const float* weights;
  const float* start;  // per filter: what the sums begin with; null: 0
  int channels, filters;
};

// Tells which lanes hold examples. All below `whole` do; from there on those do for which `lanes` is 1 and not 0.
struct Valid {
  int whole;  // a multiple of kLanes
  const float* lanes;
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

// The kernels of one instruction set.
struct Kernels {
  const char* name;
#define NOS_KERNEL(result, name, arguments) result(*name) arguments;
#include "kernels/kernels.def"
#undef NOS_KERNEL
};

}  // namespace nos::child
