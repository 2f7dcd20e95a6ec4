// Owns what the layers of texts have in common: the kernels that treat every position alike, and the order of weights
// that they want. The activation of a text is an image of one row: [position][channel][lane].
#pragma once
#include <stdexcept>
#include <string>

#include "layer.h"

namespace nos::child {

// Some neighbouring channels at the positions of a text. step: from a position to the next, in floats; backwards where
// it is negative.
struct Strip {
  float* data;
  ptrdiff_t step;

  NOS_CHILD_INLINE float* at(int position) const { return data + position * step; }
};

inline constexpr int kPanel = 8;    // filters side by side
inline constexpr int kTurned = 32;  // examples that lie below one another while gradients of weights are summed

struct SequenceKernels {
  // out[filter] = start + sum over channels of weights * in[channel]. panels: [filter / kPanel][channel][kPanel], the
  // last one filled up. start: a number per filter, in full panels; null: what is in out.
  void (*multiply)(const float* panels, const float* start, int channels, int filters, Strip in, Strip out,
                   int positions, int lanes);

  // products[filter][channel] = sum over positions and examples of gradient[filter] * in[channel]. A row of products
  // has row_of(channels) numbers. turned: memory for kTurned such rows.
  void (*multiply_weights)(Strip in, int channels, Strip gradient, int filters, int positions, int lanes, int examples,
                           float* turned, float* products);
  // sums[filter] = sum over positions and lanes of gradient[filter].
  void (*sum_rows)(Strip gradient, int filters, int positions, int lanes, float* sums);

  // to[column][row] = from[row][column]. Rows in memory are those of row_of().
  void (*turn)(const float* from, int from_row, int rows, int columns, float* to, int to_row);

  // out[filter] = table[the token there][filter]. A row of the table has row_of(filters) numbers.
  void (*take)(const float* table, int filters, const int32_t* tokens, Strip out, int positions, int lanes);
  // table[token][filter] = sum of gradient[filter] over the positions and examples that have the token.
  void (*collect)(Strip gradient, int positions, int lanes, int examples, const int32_t* tokens, int filters,
                  int vocabulary, float* table);

  // One position of gated recurrent units. gates: [n r z q][unit][lane]. Forward they come as sums of products, q that
  // of the state that r gates, and become the gates; backward they become their gradients. before, state: [unit][lane].
  void (*gate)(float* gates, const float* before, float* state, ptrdiff_t count);
  // carry: the gradient of the state from later positions; becomes that part of the gradient of `before` that does not
  // go through products.
  void (*gate_input)(float* gates, const float* before, const float* gradient, float* carry, ptrdiff_t count);
};

// Numbers of a row in which channels lie in lanes.
NOS_CHILD_INLINE int row_of(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

inline size_t in_panels(int filters) { return static_cast<size_t>((filters + kPanel - 1) / kPanel * kPanel); }
template <class... Sizes>
size_t floats(Sizes... sizes) {
  return (size_t{1} * ... * static_cast<size_t>(sizes));
}

// Where a number lies in a matrix.
inline ptrdiff_t at(int row, int columns, int column) { return ptrdiff_t{1} * row * columns + column; }

// The activation of a text, all channels.
inline Strip strip(const Image& image) { return {image.data, ptrdiff_t{1} * image.channels * image.lanes}; }

// Throws where a layer is not given a text.
inline void require_text(const LayerPlace& place, const std::string& layer) {
  if (!place.input.tokens || place.in.width != place.input.tokens)
    throw std::invalid_argument(layer + ": wants a text, as embedding gives it");
}

// A matrix in panels.
class Panels {
 public:
  Panels(int channels, int filters)
      : channels_(channels), filters_(filters), floats_(in_panels(filters) * static_cast<size_t>(channels)) {}
  int channels() const { return channels_; }
  int filters() const { return filters_; }
  const float* data() { return floats_.data(); }
  size_t size() const { return floats_.size(); }

  // at(filter, channel): where the weight lies.
  template <class At>
  void pack(const float* matrix, const At& at) {
    for (int f = 0; f < filters_; ++f) {
      float* to = floats_.data() + ptrdiff_t{1} * (f / kPanel) * channels_ * kPanel + f % kPanel;
      for (int c = 0; c < channels_; ++c) to[c * kPanel] = matrix[at(f, c)];
    }
  }

 private:
  const int channels_, filters_;
  Floats floats_;
};

}  // namespace nos::child
