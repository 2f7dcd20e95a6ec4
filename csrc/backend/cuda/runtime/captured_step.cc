#include "captured_step.h"

#include <utility>

#include "kernels.h"
#include "launch.h"

namespace nos::cuda {
namespace {

// Memory of captured steps that have been destroyed, by device. A graph may still be replaying such a step. That leaves
// no trace on any stream that is known here, and waiting for the device would end a capture that happens to be under
// way.
std::vector<std::pair<int, std::shared_ptr<Twin>>>& replayed() {
  static auto& list = *new std::vector<std::pair<int, std::shared_ptr<Twin>>>();  // CUDA may be gone at exit
  return list;
}

}  // namespace

CapturedStep::CapturedStep(const Plan& plan, std::span<const Program* const> programs,
                           std::span<const uint32_t> row_program, Capacity capacity, int device, cudaStream_t stream)
    : device_(device), image_(plan, programs, row_program, capacity, blocks_at_once(device)) {
  for (const Batch& batch : image_.batches()) {
    shapes_.push_back(block_shape(batch.kind, image_.capacity().instructions, image_.capacity().temporaries,
                                  batch.longest_chunk, properties(device).shared_limit));
    allow_shared(interpreter_of(batch.kind), device);  // not possible in a capture
  }
  cudaFuncAttributes unused;  // loads the kernel, which may not be possible in a capture
  check(cudaFuncGetAttributes(&unused, prologue_kernel()), "loading the kernel of a captured step");
  memory_ = take_twin(device, image_.bytes());
  image_.attach(memory_->host(), memory_->device());
  memory_->use_on(stream);
  memory_->upload(0, image_.initialised(), stream);
}

CapturedStep::~CapturedStep() {
  if (was_captured_) replayed().emplace_back(device_, std::move(memory_));
}

void CapturedStep::settle() {
  while (!replayed().empty()) {
    const int device = replayed().back().first;
    const OnDevice on(device);
    check(cudaDeviceSynchronize(), "waiting for replays of a captured step that is gone");
    std::erase_if(replayed(), [device](const auto& memory) { return memory.first == device; });
  }
}

void CapturedStep::begin_edit() { (void)memory_->host(); }

void CapturedStep::upload(std::span<const CapturedImage::Range> changed, cudaStream_t stream) {
  memory_->use_on(stream);
  for (const auto& range : changed) memory_->upload(range.first, range.bytes, stream);
}

void CapturedStep::launch(cudaStream_t stream) {
  if (is_capturing(stream))
    was_captured_ = true;
  else
    memory_->use_on(stream);
  Prologue prologue = image_.prologue();
  void* arguments[] = {&prologue};
  check(cudaLaunchKernel(prologue_kernel(), dim3(prologue.num_rows), dim3(kPrologueThreads), arguments,
                         prologue_shared(prologue), stream),
        "launching the scalars of a captured step");
  for (size_t i = 0; i < shapes_.size(); ++i) {
    const Batch& batch = image_.batches()[i];
    Launch launch = image_.launch(i, shapes_[i].code_room);
    launch_kernel(interpreter_of(batch.kind), batch.chunks.size(), shapes_[i].threads, shapes_[i].shared, launch,
                  stream);
  }
  if (!is_capturing(stream)) (void)memory_->note();  // an edit inside a later capture of this stream relies on it
}

uint32_t CapturedStep::steps_done(cudaStream_t stream) {
  uint32_t step = 0;
  check(
      cudaMemcpyAsync(&step, memory_->device() + CapturedImage::step_at(), sizeof step, cudaMemcpyDeviceToHost, stream),
      "reading the step");
  check(cudaStreamSynchronize(stream), "waiting for the step");
  return step;
}

}  // namespace nos::cuda
