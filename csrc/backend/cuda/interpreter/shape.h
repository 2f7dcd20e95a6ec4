// Owns Shape: how many threads a block of the interpreter has, and how much shared memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../common/kind.h"

namespace nos::cuda {

struct Shape {
  int threads;
  size_t code_room;  // bytes of shared memory for the code; overflow slots follow
  size_t shared;     // bytes of shared memory in all
};

// `length` is the number of instructions of the longest program, kEnd included; `overflow` is the number of overflow
// slots of a thread; `limit` is the bytes of dynamic shared memory that a block may have. `folds`: for the kernel that
// has reductions. Throws std::invalid_argument when the program needs more even with the smallest block.
Shape block_shape(Kind kind, uint32_t length, uint32_t overflow, int64_t longest_chunk, size_t limit,
                  bool folds = false);

}  // namespace nos::cuda
