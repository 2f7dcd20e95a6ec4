// Owns Batch: the tensors of a plan that one launch works on, as the records that it reads. Pure host code: what a
// device would read can be built, inspected and run on a machine without one.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "../../../plan/plan.h"
#include "kind.h"
#include "records.h"

namespace nos::cuda {

// The tensors of one kind, which are cut into chunks.
struct Batch {
  Kind kind;
  std::vector<TensorRec> tensors;
  std::vector<ChunkRec> chunks;
  uint32_t chunk_elements = 0;  // elements of every chunk but the last of a tensor
  int64_t longest_chunk = 0;    // elements of the longest chunk that there is
  bool one_layout = true;       // whether all tensors have the dtypes of the first
};

// Returns the batches of a plan; a kind without tensors has none. `chunk` is the number of elements per block, a
// multiple of 32, or 0 for as many as keep `blocks_at_once` blocks busy. Where states are quantized, it is rounded up
// to whole blocks of scales.
std::vector<Batch> batches_of(const Plan& plan, int blocks_at_once, int64_t chunk = 0);

// Takes over the addresses of a plan that differs only in them from the plan of which the batches were made.
void move_tensors(std::span<Batch> batches, const Plan& plan);

}  // namespace nos::cuda
