#include "captured_step.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels.h"
#include "launch.h"

namespace nos::cuda {
namespace {

// Memory of captured steps that have been destroyed, by device. A graph may still be replaying such a step. That leaves
// no trace on any stream that is known here, and waiting for the device would end a capture that happens to be under
// way.
std::vector<std::pair<int, std::shared_ptr<void>>>& replayed() {
  static auto& list = *new std::vector<std::pair<int, std::shared_ptr<void>>>();  // CUDA may be gone at exit
  return list;
}

[[noreturn]] void refuse_capture() {
  throw std::runtime_error(
      "a CapturedStep cannot be made, changed or read inside a CUDA graph capture; do it before, and only call it "
      "inside");
}

}  // namespace

// Calls work(stream) with the stream that uploads go to: this one, or beside its capture one of their own.
template <class F>
void CapturedStep::uploading(cudaStream_t stream, const F& work) const {
  if (!is_capturing(stream)) {
    settle();
    return work(stream);
  }
  if (!in_capture_) refuse_capture();
  BesideCapture beside(device_);
  work(beside.stream());
  beside.finish();
}

// Changes the host's image and uploads the ranges that `change` returns.
template <class F>
void CapturedStep::edit(const Place& place, const F& change) {
  const OnDevice on(device_);
  uploading(stream_of(place), [&](cudaStream_t stream) {
    (void)memory_->host();  // waits for copies that still read it
    const std::vector<CapturedImage::Range> changed = change();
    memory_->use_on(stream);
    for (const auto& range : changed) memory_->upload(range.first, range.bytes, stream);
  });
}

CapturedStep::CapturedStep(const Plan& plan, std::span<const Program* const> programs,
                           std::span<const uint32_t> row_program, Capacity capacity, bool in_capture,
                           const Place& place)
    : device_(place.device),
      in_capture_(in_capture),
      image_(plan, programs, row_program, capacity, blocks_at_once(place.device)) {
  uploading(stream_of(place), [&](cudaStream_t stream) {
    for (const Batch& batch : image_.batches()) {
      shapes_.push_back(block_shape(batch.kind, image_.capacity().instructions, image_.capacity().temporaries,
                                    batch.longest_chunk, properties(device_).shared_limit));
      allow_shared(interpreter_of(batch.kind), device_);  // not possible in a capture
    }
    cudaFuncAttributes unused;  // has the kernel loaded, which may not be possible in a capture
    check(cudaFuncGetAttributes(&unused, prologue_kernel()), "loading the kernel of a captured step");
    memory_ = take_twin(device_, image_.bytes());
    image_.attach(memory_->host(), memory_->device());
    memory_->use_on(stream);
    memory_->upload(0, image_.initialised(), stream);
    if (image_.has_passes()) passes_ = std::make_shared<DevicePasses>(plan, programs, device_, true, stream);
  });
}

CapturedStep::~CapturedStep() {
  if (!was_captured_) return;
  replayed().emplace_back(device_, std::move(memory_));
  if (passes_) replayed().emplace_back(device_, std::move(passes_));
}

void CapturedStep::settle() {
  while (!replayed().empty()) {
    const int device = replayed().back().first;
    const OnDevice on(device);
    check(cudaDeviceSynchronize(), "waiting for replays of a captured step that is gone");
    std::erase_if(replayed(), [device](const auto& memory) { return memory.first == device; });
  }
}

void CapturedStep::set_row(uint32_t r, uint64_t seed, double total_steps, std::span<const double> hypers,
                           std::span<const void* const> sources, uint64_t wide, const Place& place) {
  edit(place, [&] {
    if (r >= image_.rows() || std::max(hypers.size(), sources.size()) > kRowHypers)
      throw std::out_of_range("row or hyperparameters");
    return std::vector{image_.set_row(r, seed, total_steps, hypers, sources, wide)};
  });
}

void CapturedStep::set_head(uint32_t steps_done, double factor, Rounding rounding, const double* counter,
                            const Place& place) {
  edit(place, [&] { return std::vector{image_.set_head(steps_done, factor, rounding, counter)}; });
}

void CapturedStep::load(uint32_t k, const Program& program, const Place& place) {
  edit(place, [&] {
    if (k >= image_.programs()) throw std::out_of_range("program number");
    return image_.load(k, program);
  });
}

void CapturedStep::launch(const Place& place) {
  const OnDevice on(device_);
  const cudaStream_t stream = stream_of(place);
  if (is_capturing(stream)) {
    was_captured_ = true;
  } else {
    memory_->use_on(stream);
    if (passes_) passes_->use_on(stream);
  }
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
  if (passes_) passes_->launch(image_.given(), image_.rows(), stream);
  if (is_capturing(stream)) return;
  if (passes_) passes_->note();
  (void)memory_->note();  // an edit inside a later capture of this stream relies on it
}

uint32_t CapturedStep::steps_done(const Place& place) {
  const OnDevice on(device_);
  const cudaStream_t stream = stream_of(place);
  if (is_capturing(stream)) refuse_capture();
  uint32_t step = 0;
  check(
      cudaMemcpyAsync(&step, memory_->device() + CapturedImage::step_at(), sizeof step, cudaMemcpyDeviceToHost, stream),
      "reading the step");
  check(cudaStreamSynchronize(stream), "waiting for the step");
  return step;
}

}  // namespace nos::cuda
