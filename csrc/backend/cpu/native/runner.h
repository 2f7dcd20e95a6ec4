// Owns the native tier's run over a tensor: the stages of one program, block after block, over one chunk.
#pragma once
#include <algorithm>

#include "../engine.h"
#include "../kernel_call.h"
#include "native.h"

namespace nos::cpu::native {

// Bytes of scratch that run() needs, from an address aligned to a cache line.
inline size_t scratch_bytes(const NativeCode& code) {
  const size_t pointers = static_cast<size_t>(code.num_slots + code.num_scratch) * sizeof(char*);
  return (pointers + kLine - 1) / kLine * kLine + static_cast<size_t>(code.num_scratch) * kScratchStride;
}

// The stages that are not fused loops; base: the address of each place.
inline void run_stage(const Stage& s, char* const* base, const float* row, const DrawKey& key, int64_t n,
                      const DType* dtypes) {
  const Kernels& kernels = *isa().kernels;
  auto* half = reinterpret_cast<uint16_t*>(base[s.index]);
  auto* wide = reinterpret_cast<float*>(base[s.place]);
  const bool bf16 = dtypes[s.index] == DType::bf16;
  if (s.kind == Stage::Kind::widen)
    (bf16 ? kernels.from_bf16 : kernels.from_f16)(wide, half, n);
  else if (s.kind == Stage::Kind::narrow)
    (bf16 ? kernels.to_bf16 : kernels.to_f16)(half, wide, n);
  else
    run_call(s.call, reinterpret_cast<float* const*>(base), row, key, n, kernels.f32);
}

// Elements [chunk.begin, chunk.end). row: NativeProgram::fill_row. memory: scratch_bytes(code).
inline void run(const NativeCode& code, const PlannedTensor& tensor, const Chunk& chunk, const float* row, DrawKey key,
                int block, char* memory) {
  char** base = reinterpret_cast<char**>(memory);
  const auto slots = static_cast<size_t>(code.num_slots);
  const auto places = slots + static_cast<size_t>(code.num_scratch);
  char* scratch = memory + (places * sizeof(char*) + kLine - 1) / kLine * kLine;
  for (size_t i = 0; i + slots < places; ++i) base[slots + i] = scratch + i * kScratchStride;
  const int64_t origin = static_cast<int64_t>(chunk.slice) * tensor.numel;
  const int64_t most = code.single_loop ? chunk.end - chunk.begin : std::min(block, kMaxBlock);
  for (int64_t first = chunk.begin; first < chunk.end; first += most) {
    const int64_t n = std::min(most, chunk.end - first);
    for (size_t s = 0; s < slots; ++s)
      base[s] = static_cast<char*>(tensor.data[s]) + (origin + first) * size_of(tensor.dtype[s]);
    if (code.single_loop) {
      code.loops[0](base, nullptr, row, n);
      continue;
    }
    key.element = static_cast<uint64_t>(first);
    for (const Stage& s : code.stages) {
      if (s.kind == Stage::Kind::loop)
        code.loops[s.index](base, reinterpret_cast<float*>(scratch), row, n);
      else
        run_stage(s, base, row, key, n, tensor.dtype.data());
    }
  }
}

}  // namespace nos::cpu::native
