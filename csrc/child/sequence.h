// Owns SequenceKernels, the kernels of texts. The activation of a text is an image of one row:
// [position][channel][lane]. As of image.h, all functions are inlined.
#pragma once
#include "image.h"

namespace nos::child {

// Some neighbouring channels at the positions of a text. step: from a position to the next, in floats.
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

}  // namespace nos::child
