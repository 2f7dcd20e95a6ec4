// Owns the run of a job on the host: the kernel's own body for every (block, thread) pair, phase by phase. It is how a
// machine without a device proves the kernel; far too slow for anything else.
#pragma once
#include <cstddef>
#include <limits>
#include <vector>

#include "captured.h"
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

inline void host_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape) {
  if (kind == Kind::f32)
    host_launch<float, kElements32, false>(launch, blocks, shape);
  else if (kind == Kind::mixed)
    host_launch<float, kElements32, true>(launch, blocks, shape);
  else
    host_launch<double, kElements64, false>(launch, blocks, shape);
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
    if (block.size() > kInlineBytes) launch.step_block = block.data();
    write_step_block(part.kind, args, block.size() > kInlineBytes ? block.data() : launch.inline_block);
    host_launch(part.kind, launch, part.chunks.size(), shape);
  }
}

// How the blocks of a prologue are run, which must not matter.
struct PrologueOrder {
  uint32_t threads = kPrologueThreads;
  bool backwards = false;  // the last block first, and in each phase the last thread first
};

inline void host_prologue(const Prologue& a, uint32_t blocks, size_t shared, PrologueOrder order = {}) {
  const auto nth = [&](uint32_t k, uint32_t count) { return order.backwards ? count - 1 - k : k; };
  for (uint32_t b = 0; b < blocks; ++b) {
    std::vector<double> slots(shared / sizeof(double), std::numeric_limits<double>::quiet_NaN());
    const auto each = [&](const auto& phase) {
      for (uint32_t x = 0; x < order.threads; ++x)
        phase(HostContext{nth(x, order.threads), order.threads}, a, nth(b, blocks), slots.data());
    };
    each([](auto&&... arguments) { gather(arguments...); });
    each([](auto&&... arguments) { evaluate(arguments...); });
    each([](auto&&... arguments) { publish(arguments...); });
  }
}

// One step of a captured image: the prologue, then the launches.
inline void host_run(const CapturedImage& image, size_t shared_limit, PrologueOrder order = {}) {
  const Prologue prologue = image.prologue();
  host_prologue(prologue, prologue.num_rows, prologue_shared(prologue), order);
  for (size_t i = 0; i < image.job().parts.size(); ++i) {
    const Part& part = image.job().parts[i];
    const Shape shape = block_shape(part.kind, image.capacity().instructions, image.capacity().temporaries,
                                    part.longest_chunk, shared_limit);
    host_launch(part.kind, image.launch(i, shape.code_room), part.chunks.size(), shape);
  }
}

}  // namespace nos::cuda
