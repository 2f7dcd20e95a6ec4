// Owns Panels, a matrix in the order in which the kernels of texts take it, and what else their layers have in common.
#pragma once
#include <stdexcept>
#include <string>

#include "layer.h"

namespace nos::child {

// Returns the number of filters when the last panel is filled up.
inline size_t in_panels(int filters) { return static_cast<size_t>((filters + kPanel - 1) / kPanel * kPanel); }
// Returns the product of sizes as a size_t; as an int it might overflow.
template <class... Sizes>
size_t floats(Sizes... sizes) {
  return (size_t{1} * ... * static_cast<size_t>(sizes));
}

// Returns where a number lies in a matrix that is stored row by row.
inline ptrdiff_t at(int row, int columns, int column) { return ptrdiff_t{1} * row * columns + column; }

// Returns the activation of a text with all its channels.
inline Strip strip(const Image& image) { return {image.data, ptrdiff_t{1} * image.channels * image.lanes}; }

// Throws where a layer is not given a text.
inline void require_text(const LayerPlace& place, const std::string& layer) {
  if (!place.input.tokens || place.in.width != place.input.tokens)
    throw std::invalid_argument(layer + ": wants a text, as embedding gives it");
}

// A matrix in panels: kPanel filters side by side, channel below channel, then the next kPanel.
class Panels {
 public:
  Panels(int channels, int filters)
      : channels_(channels), filters_(filters), floats_(in_panels(filters) * static_cast<size_t>(channels)) {}
  int channels() const { return channels_; }
  int filters() const { return filters_; }
  const float* data() { return floats_.data(); }
  size_t size() const { return floats_.size(); }

  // Copies a matrix. at(filter, channel) tells where in it a weight lies.
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
