#include "batches.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace nos::cuda {
namespace {

static_assert(kSlots == kMaxSlots);
static_assert(static_cast<uint32_t>(DType::f32) == kF32 && static_cast<uint32_t>(DType::f64) == kF64 &&
              static_cast<uint32_t>(DType::bf16) == kBF16 && static_cast<uint32_t>(DType::f16) == kF16 &&
              static_cast<uint32_t>(DType::i8) == kI8 && static_cast<uint32_t>(DType::u8) == kU8);

constexpr int64_t kMostChunk = 32768, kLeastChunk = 2048;  // elements; the least is one tile of the widest block
constexpr int64_t kMostChunkAllowed = 1 << 20;             // for $NOS_CUDA_MOST_CHUNK

Kind kind_of(const PlannedTensor& t, int slots) {
  if (is_wide(t)) return Kind::f64;
  const std::span own(t.dtype.data(), static_cast<size_t>(slots));
  if (std::ranges::any_of(own, is_quantized)) return Kind::quantized;
  return std::ranges::all_of(own, [](DType d) { return d == DType::f32; }) ? Kind::f32 : Kind::mixed;
}

TensorRec record(const PlannedTensor& t, int slots) {
  TensorRec out{};
  out.aligned = 1;
  for (int s = 0; s < slots; ++s) {
    const auto i = static_cast<size_t>(s);
    const int size = size_of(t.dtype[i]);
    const auto boundary = static_cast<uintptr_t>(size == 8 ? 16 : 4 * size);
    out.data[s] = t.data[i];
    const auto dtype = static_cast<uint32_t>(t.dtype[i]);
    out.dtypes |= (dtype & 3u) << (2 * s) | dtype >> 2 << (kCodeBits + s);
    const bool slices_too = t.slices == 1 || static_cast<uintptr_t>(t.numel * size) % boundary == 0;
    if (reinterpret_cast<uintptr_t>(t.data[i]) % boundary != 0 || !slices_too) out.aligned = 0;
  }
  out.numel = t.numel;
  out.program = t.program;
  out.row = t.row;
  out.index = t.index;
  return out;
}

// Appends the records of a tensor.
void add_records(std::vector<TensorRec>& to, const PlannedTensor& t, Kind kind, int slots) {
  to.push_back(record(t, slots));
  if (kind != Kind::quantized) return;
  TensorRec scales{};
  for (size_t s = 0; s < t.scales.size(); ++s) scales.data[bytecode::kFirstState + s] = t.scales[s];
  to.push_back(scales);
}

// The most elements that a chunk may have. NOS_CUDA_MOST_CHUNK is read for every plan, so that a bench may try several
// values. Results do not depend on it.
int64_t most_chunk() {
  const char* text = std::getenv("NOS_CUDA_MOST_CHUNK");
  if (!text || !*text) return kMostChunk;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc() || *end || value % kLeastChunk || value < kLeastChunk || value > kMostChunkAllowed)
    throw std::invalid_argument("NOS_CUDA_MOST_CHUNK is '" + std::string(text) + "'; expected a multiple of " +
                                std::to_string(kLeastChunk) + " up to " + std::to_string(kMostChunkAllowed) +
                                ", the most elements that a block works on; unset it for the default, " +
                                std::to_string(kMostChunk));
  return value;
}

// The elements per chunk, in whole tiles, with which the blocks that run at once are all busy twice. While the first
// ones begin or end, others then use the memory.
int64_t chunk_for(int64_t elements, int blocks_at_once) {
  const int64_t blocks = 2 * std::max(blocks_at_once, 1), share = (elements + blocks - 1) / blocks;
  return std::clamp((share + kLeastChunk - 1) / kLeastChunk * kLeastChunk, kLeastChunk, most_chunk());
}

}  // namespace

std::vector<Batch> batches_of(const Plan& plan, int blocks_at_once, int64_t chunk) {
  std::vector<Batch> out;
  for (const Kind kind : {Kind::f32, Kind::mixed, Kind::f64, Kind::quantized}) {
    Batch batch;
    batch.kind = kind;
    int64_t elements = 0;
    for (const PlannedTensor& t : plan.tensors)
      if (kind_of(t, plan.num_slots) == kind) elements += t.numel * t.slices;
    if (elements == 0) continue;
    const int64_t unit = kind == Kind::quantized ? kScaleBlock : 1;
    const int64_t size = chunk ? (chunk + unit - 1) / unit * unit : chunk_for(elements, blocks_at_once);
    batch.chunk_elements = static_cast<uint32_t>(size);
    for (const PlannedTensor& t : plan.tensors) {
      if (kind_of(t, plan.num_slots) != kind) continue;
      const auto number = static_cast<uint32_t>(batch.tensors.size());
      add_records(batch.tensors, t, kind, plan.num_slots);
      batch.one_layout &= batch.tensors[0].dtypes == batch.tensors[number].dtypes;
      batch.longest_chunk = std::max(batch.longest_chunk, std::min(size, t.numel));
      for (uint32_t slice = 0; slice < t.slices; ++slice)
        for (int64_t begin = 0; begin < t.numel; begin += size) batch.chunks.push_back({begin, number, slice});
    }
    out.push_back(std::move(batch));
  }
  return out;
}

void move_tensors(std::span<Batch> batches, const Plan& plan) {
  for (Batch& batch : batches) {
    batch.tensors.clear();
    for (const PlannedTensor& t : plan.tensors)
      if (kind_of(t, plan.num_slots) == batch.kind) add_records(batch.tensors, t, batch.kind, plan.num_slots);
  }
}

}  // namespace nos::cuda
