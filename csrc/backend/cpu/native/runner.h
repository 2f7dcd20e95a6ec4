// Owns the run of a native program: its stages over one chunk of one tensor, block after block.
#pragma once
#include <algorithm>

#include "../engine.h"
#include "../kernel_call.h"
#include "../storage.h"
#include "native.h"

namespace nos::cpu::native {

// The scratch memory begins with pointers to the program's places. This is their size in bytes.
inline size_t pointer_bytes(const NativeCode& code) {
  const size_t bytes = static_cast<size_t>(code.num_slots + code.num_scratch) * sizeof(char*);
  return (bytes + kLine - 1) / kLine * kLine;
}

// The bytes of scratch memory that run() needs. It starts at a cache line.
inline size_t scratch_bytes(const NativeCode& code) {
  return pointer_bytes(code) + static_cast<size_t>(code.num_scratch) * kScratchStride;
}

static_assert(kMaxBlock <= kMostRounded);

// Runs one stage over n elements of a tensor, from number `first` on. `base` holds the address of each place, `scratch`
// is that of the scratch arrays. `rounding` has the keys of each slot that is rounded stochastically.
inline void run_stage(const NativeCode& code, const Stage& s, char* const* base, char* scratch, const float* row,
                      const DrawKey& key, const RoundingKeys* rounding, const PlannedTensor& tensor, int64_t first,
                      int64_t n, FoldTarget folds) {
  const auto values = [&] { return reinterpret_cast<float*>(base[s.place]); };
  switch (s.kind) {
    case Stage::Kind::loop:
      return code.loops[s.index](base, reinterpret_cast<float*>(scratch), row, n);
    case Stage::Kind::kernel:
      return run_call(s.call, reinterpret_cast<float* const*>(base), row, key, n, isa().kernels->f32, folds);
    case Stage::Kind::widen:
      return widen(*isa().kernels, values(), stored(tensor, s.index, first), n);
    case Stage::Kind::spread:
      return spread_scales(values(), stored(tensor, s.index, first), n);
    case Stage::Kind::scales:
      return find_scales(*isa().kernels, stored(tensor, s.index, first), values(), n);
    case Stage::Kind::narrow:
      return narrow(*isa().kernels, stored(tensor, s.index, first), values(), n);
    case Stage::Kind::narrow_stochastically:
      return narrow_stochastically(*isa().kernels, stored(tensor, s.index, first), values(), rounding[s.index], n);
  }
}

// Runs the program over elements [chunk.begin, chunk.end). `row` is what NativeProgram::fill_row wrote; `memory` has
// scratch_bytes(code) bytes; `folds` are the reductions of the tensor's slice.
inline void run(const NativeCode& code, const PlannedTensor& tensor, const Chunk& chunk, const float* row, DrawKey key,
                int block, char* memory, FoldTarget folds = {}) {
  char** base = reinterpret_cast<char**>(memory);
  char* scratch = memory + pointer_bytes(code);
  const auto slots = static_cast<size_t>(code.num_slots);
  for (int i = 0; i < code.num_scratch; ++i) base[slots + static_cast<size_t>(i)] = scratch + i * kScratchStride;
  const int64_t origin = static_cast<int64_t>(chunk.slice) * tensor.numel;
  const int64_t most = code.single_loop ? chunk.end - chunk.begin : std::min(block, kMaxBlock);
  for (int64_t first = chunk.begin; first < chunk.end; first += most) {
    const int64_t n = std::min(most, chunk.end - first);
    for (size_t s = 0; s < slots; ++s)
      base[s] = static_cast<char*>(tensor.data[s]) + (origin + first) * size_of(tensor.dtype[s]);
    key.element = static_cast<uint64_t>(first);
    // Draws take long and wait for nothing, so they begin before the first loop.
    RoundingKeys rounding[kMaxSlots];
    for (const Stage& s : code.stages)
      if (s.kind == Stage::Kind::narrow_stochastically)
        rounding[s.index] = rounding_keys(key, output_of_slot(s.index), n);
    for (const Stage& s : code.stages)
      run_stage(code, s, base, scratch, row, key, rounding, tensor, origin + first, n, folds.at(first));
  }
}

}  // namespace nos::cpu::native
