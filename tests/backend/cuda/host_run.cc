#include "host_run.h"

#include <cstddef>
#include <limits>

#include "../../../csrc/backend/cuda/common/step_block.h"
#include "../../../csrc/backend/cuda/interpreter/kernel.h"

namespace nos::cuda {
namespace {

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

}  // namespace

void host_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape) {
  if (kind == Kind::f32)
    host_launch<float, kElements32, false>(launch, blocks, shape);
  else if (kind == Kind::mixed)
    host_launch<float, kElements32, true>(launch, blocks, shape);
  else
    host_launch<double, kElements64, false>(launch, blocks, shape);
}

void host_run(const std::vector<Batch>& batches, const ProgramTable& table, const StepArgs& args, size_t shared_limit,
              CompiledKernel compiled) {
  for (const Batch& batch : batches) {
    const Shape shape = block_shape(batch.kind, table.longest, table.overflow, batch.longest_chunk, shared_limit);
    std::vector<unsigned char> block(step_block_bytes(batch.kind, args));
    Launch launch{};
    launch.tensors = batch.tensors.data();
    launch.chunks = batch.chunks.data();
    launch.programs = table.programs.data();
    launch.code = table.code.data();
    launch.rows = static_cast<uint32_t>(args.num_rows);
    launch.chunk_elements = batch.chunk_elements;
    launch.code_room = static_cast<uint32_t>(shape.code_room);
    if (block.size() > kInlineBytes) launch.step_block = block.data();
    write_step_block(batch.kind, args, block.size() > kInlineBytes ? block.data() : launch.inline_block);
    if (compiled)
      compiled(&launch, static_cast<uint32_t>(batch.chunks.size()));
    else
      host_launch(batch.kind, launch, batch.chunks.size(), shape);
  }
}

void host_prologue(const Prologue& a, uint32_t blocks, size_t shared, PrologueOrder order) {
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

void host_run(const CapturedImage& image, size_t shared_limit, PrologueOrder order) {
  const Prologue prologue = image.prologue();
  host_prologue(prologue, prologue.num_rows, prologue_shared(prologue), order);
  for (size_t i = 0; i < image.batches().size(); ++i) {
    const Batch& batch = image.batches()[i];
    const Shape shape = block_shape(batch.kind, image.capacity().instructions, image.capacity().temporaries,
                                    batch.longest_chunk, shared_limit);
    host_launch(batch.kind, image.launch(i, shape.code_room), batch.chunks.size(), shape);
  }
}

}  // namespace nos::cuda
