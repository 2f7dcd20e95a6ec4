#include "shape.h"

#include <stdexcept>
#include <string>

#include "fold.h"

namespace nos::cuda {

Shape block_shape(Kind kind, uint32_t length, uint32_t overflow, int64_t longest_chunk, size_t limit, bool folds) {
  const bool wide = kind == Kind::f64;
  const size_t word = wide ? 16 : 8;
  const auto elements = static_cast<size_t>(folds ? kFoldElements : wide ? kElements64 : kElements32);
  const int most_threads = folds && wide ? kMostFoldThreads64 : kMostThreads;
  const size_t code_room = ((length + 1) * word + 15) / 16 * 16;  // one more is read ahead
  const size_t per_thread = overflow * elements * (wide ? 8 : 4);
  int threads = 32;  // small chunks: as many warps as have elements
  while (threads < most_threads && static_cast<int64_t>(threads) * static_cast<int64_t>(elements) < longest_chunk)
    threads *= 2;
  while (threads > 32 && code_room + per_thread * static_cast<size_t>(threads) > limit) threads /= 2;
  const size_t shared = code_room + per_thread * static_cast<size_t>(threads);
  if (shared > limit)
    throw std::invalid_argument("the rule needs " + std::to_string(shared) + " bytes of shared memory per block (" +
                                std::to_string(length) + " instructions, " + std::to_string(overflow) +
                                " temporaries beyond the registers) and the device has " + std::to_string(limit) +
                                "; split the rule, or move the tensors to the CPU");
  return {threads, code_room, shared};
}

}  // namespace nos::cuda
