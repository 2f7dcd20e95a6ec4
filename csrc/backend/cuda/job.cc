#include "job.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "../../ops/float_environment.h"

namespace nos::cuda {
namespace {

static_assert(kSlots == kMaxSlots && kRegInputs <= kSlots);
static_assert(static_cast<uint32_t>(DType::f32) == kF32 && static_cast<uint32_t>(DType::f64) == kF64 &&
              static_cast<uint32_t>(DType::bf16) == kBF16 && static_cast<uint32_t>(DType::f16) == kF16);

constexpr int64_t kMostChunk = 16384, kLeastChunk = 2048;  // elements; the least is one tile of the widest block
constexpr int64_t kMostChunkAllowed = 1 << 20;             // for $NOS_CUDA_MOST_CHUNK

Kind kind_of(const PlannedTensor& t, int slots) {
  if (t.dtype[bytecode::kP] == DType::f64) return Kind::f64;
  for (int s = 0; s < slots; ++s)
    if (t.dtype[static_cast<size_t>(s)] != DType::f32) return Kind::mixed;
  return Kind::f32;
}

TensorRec record(const PlannedTensor& t, int slots) {
  TensorRec out{};
  out.aligned = 1;
  for (int s = 0; s < slots; ++s) {
    const auto i = static_cast<size_t>(s);
    const int size = size_of(t.dtype[i]);
    const auto boundary = static_cast<uintptr_t>(size == 2 ? 8 : 16);
    out.data[s] = t.data[i];
    out.dtypes |= static_cast<uint32_t>(t.dtype[i]) << (2 * s);
    const bool slices_too = t.slices == 1 || static_cast<uintptr_t>(t.numel * size) % boundary == 0;
    if (reinterpret_cast<uintptr_t>(t.data[i]) % boundary != 0 || !slices_too) out.aligned = 0;
  }
  out.numel = t.numel;
  out.program = t.program;
  out.row = t.row;
  out.index = t.index;
  return out;
}

// The most elements of a chunk: $NOS_CUDA_MOST_CHUNK, read for every job so that a bench may try several. Results do
// not depend on it.
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

// Elements per chunk that give every block that runs at once its share, in whole tiles.
int64_t chunk_for(int64_t elements, int blocks_at_once) {
  const int64_t share = elements / std::max(blocks_at_once, 1);
  return std::clamp(share / kLeastChunk * kLeastChunk, kLeastChunk, most_chunk());
}

}  // namespace

Job make_job(const Plan& plan, std::span<const Program* const> programs, int blocks_at_once, int64_t chunk,
             uint32_t registers) {
  Job job;
  for (const Program* p : programs) {
    auto code = registers == kRegs ? lowered(*p) : std::make_shared<const DeviceCode>(lower(*p, registers));
    job.programs.push_back(
        {static_cast<uint32_t>(job.code.size()), static_cast<uint32_t>(code->code.size()), code->reads, code->writes});
    job.code.insert(job.code.end(), code->code.begin(), code->code.end());
    job.longest = std::max(job.longest, static_cast<uint32_t>(code->code.size()) + 1);
    job.overflow = std::max(job.overflow, code->overflow);
    job.lowered.push_back(std::move(code));
  }
  for (const Kind kind : {Kind::f32, Kind::mixed, Kind::f64}) {
    Part part{kind, {}, {}, 0, 0, true};
    int64_t elements = 0;
    for (const PlannedTensor& t : plan.tensors)
      if (kind_of(t, plan.num_slots) == kind) elements += t.numel * t.slices;
    if (elements == 0) continue;
    const int64_t size = chunk ? chunk : chunk_for(elements, blocks_at_once);
    part.chunk_elements = static_cast<uint32_t>(size);
    for (const PlannedTensor& t : plan.tensors) {
      if (kind_of(t, plan.num_slots) != kind) continue;
      const auto number = static_cast<uint32_t>(part.tensors.size());
      part.tensors.push_back(record(t, plan.num_slots));
      part.one_layout &= part.tensors[0].dtypes == part.tensors.back().dtypes;
      part.longest_chunk = std::max(part.longest_chunk, std::min(size, t.numel));
      for (uint32_t slice = 0; slice < t.slices; ++slice)
        for (int64_t begin = 0; begin < t.numel; begin += size) part.chunks.push_back({begin, number, slice});
    }
    job.parts.push_back(std::move(part));
  }
  return job;
}

void move_tensors(Job& job, const Plan& plan) {
  for (Part& part : job.parts) {
    part.tensors.clear();
    for (const PlannedTensor& t : plan.tensors)
      if (kind_of(t, plan.num_slots) == part.kind) part.tensors.push_back(record(t, plan.num_slots));
  }
}

size_t step_block_bytes(Kind kind, const StepArgs& args) {
  size_t scalars = 0;
  for (size_t r = 0; r < args.num_rows; ++r) scalars += args.row_sizes[r];
  return sizeof(StepHead) + args.num_rows * sizeof(RowHead) + scalars * (kind == Kind::f64 ? 8 : 4);
}

namespace {

NOS_NOINLINE void write_step_block_here(Kind kind, const StepArgs& args, unsigned char* out) {
  const StepHead head{args.step, args.stochastic_rounding, args.factor};
  std::memcpy(out, &head, sizeof head);
  out += sizeof head;
  unsigned char* scalars = out + args.num_rows * sizeof(RowHead);
  uint32_t first = 0;
  for (size_t r = 0; r < args.num_rows; ++r) {
    const RowHead row{args.seeds[r], first, 0};
    std::memcpy(out, &row, sizeof row);
    out += sizeof row;
    first += static_cast<uint32_t>(args.row_sizes[r]);
    for (size_t i = 0; i < args.row_sizes[r]; ++i) {
      const double wide = args.rows[r][i];
      const auto narrow = static_cast<float>(wide);
      if (kind == Kind::f64)
        std::memcpy(scalars, &wide, sizeof wide);
      else
        std::memcpy(scalars, &narrow, sizeof narrow);
      scalars += kind == Kind::f64 ? sizeof wide : sizeof narrow;
    }
  }
}

}  // namespace

void write_step_block(Kind kind, const StepArgs& args, unsigned char* out) {
  const FloatEnvironment environment;  // scalars are rounded to fp32
  write_step_block_here(kind, args, out);
}

Shape block_shape(Kind kind, uint32_t length, uint32_t overflow, int64_t longest_chunk, size_t limit) {
  const bool wide = kind == Kind::f64;
  const size_t word = wide ? 16 : 8;
  const auto elements = static_cast<size_t>(wide ? kElements64 : kElements32);
  const size_t code_room = (length * word + 15) / 16 * 16;
  const size_t per_thread = overflow * elements * (wide ? 8 : 4);
  int threads = 32;  // small chunks: as many warps as have elements
  while (threads < kMostThreads && static_cast<int64_t>(threads) * static_cast<int64_t>(elements) < longest_chunk)
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
