// Owns the run of a job on the host: the kernel's own body for every (block, thread) pair, phase by phase. It is how a
// machine without a device proves the kernel; far too slow for anything else.
#pragma once
#include <cstddef>
#include <vector>

#include "job.h"
#include "kernel.h"

namespace nos::cuda {

struct HostContext {
  uint32_t thread_, threads_;
  uint32_t thread() const { return thread_; }
  uint32_t threads() const { return threads_; }
};

template <class T, int E, bool Mixed>
void host_launch(const Launch& launch, size_t blocks, const Shape& shape) {
  std::vector<std::max_align_t> memory(shape.shared / sizeof(std::max_align_t) + 1);
  auto* dynamic = reinterpret_cast<unsigned char*>(memory.data());
  auto* code = reinterpret_cast<Decoded<T>*>(dynamic);
  const auto threads = static_cast<uint32_t>(shape.threads);
  for (uint32_t block = 0; block < blocks; ++block) {
    Shared<T> shared;
    for (uint32_t x = 0; x < threads; ++x) set_up(HostContext{x, threads}, launch, block, shared, code);
    for (uint32_t x = 0; x < threads; ++x)
      run<T, E, Mixed>(HostContext{x, threads}, shared, code, reinterpret_cast<T*>(dynamic + launch.code_room) + x);
  }
}

// One step. shared_limit: bytes of shared memory that a block may have, as on a device.
inline void host_run(const Job& job, const StepArgs& args, size_t shared_limit) {
  for (const Part& part : job.parts) {
    const Shape shape = block_shape(part.kind, job.longest, job.overflow, part.longest_chunk, shared_limit);
    std::vector<unsigned char> block(step_block_bytes(part.kind, args));
    Launch launch{};
    launch.tensors = part.tensors.data();
    launch.chunks = part.chunks.data();
    launch.programs = job.programs.data();
    launch.code = job.code.data();
    launch.rows = static_cast<uint32_t>(args.num_rows);
    launch.chunk_elements = part.chunk_elements;
    launch.code_room = static_cast<uint32_t>(shape.code_room);
    if (block.size() <= kInlineBytes) {
      write_step_block(part.kind, args, launch.inline_block);
    } else {
      write_step_block(part.kind, args, block.data());
      launch.step_block = block.data();
    }
    const size_t blocks = part.chunks.size();
    if (part.kind == Kind::f32)
      host_launch<float, kElements32, false>(launch, blocks, shape);
    else if (part.kind == Kind::mixed)
      host_launch<float, kElements32, true>(launch, blocks, shape);
    else
      host_launch<double, kElements64, false>(launch, blocks, shape);
  }
}

}  // namespace nos::cuda
