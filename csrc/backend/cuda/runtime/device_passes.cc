#include "device_passes.h"

#include "../reducing/between.h"
#include "kernels.h"
#include "launch.h"

namespace nos::cuda {
namespace {

const void* kernel_of(const ReducingImage::Sweep& sweep) {
  return sweep.folds ? folding_interpreter_of(sweep.kind) : interpreter_of(sweep.kind);
}

void load_kernel(const void* kernel) {
  cudaFuncAttributes unused;
  check(cudaFuncGetAttributes(&unused, kernel), "loading the kernels of a captured step");
}

void launch_between(const void* kernel, dim3 blocks, int threads, Between between, cudaStream_t stream) {
  if (blocks.x == 0 || blocks.y == 0) return;
  void* arguments[] = {&between};
  check(cudaLaunchKernel(kernel, blocks, dim3(static_cast<unsigned>(threads)), arguments, 0, stream),
        "launching what runs between two passes");
}

}  // namespace

DevicePasses::DevicePasses(const Plan& plan, std::span<const Program* const> programs, int device, bool for_capture,
                           cudaStream_t stream)
    : device_(device), image_(plan, programs, blocks_at_once(device), properties(device).shared_limit) {
  for (const ReducingImage::Pass& pass : image_.passes())
    for (const ReducingImage::Sweep& sweep : pass.sweeps) {
      if (for_capture) load_kernel(kernel_of(sweep));
      if (sweep.shape.shared > kUnaskedShared) allow_shared(kernel_of(sweep), device_);
    }
  if (for_capture)
    for (const void* kernel : {begin_kernel(), first_level_kernel(), finish_kernel(), join_kernel()})
      load_kernel(kernel);
  fixed_ = take_twin(device_, image_.fixed_bytes());
  scratch_ = take_twin(device_, image_.scratch_bytes());
  image_.write_fixed(fixed_->host());
  fixed_->use_on(stream);
  fixed_->upload(0, image_.fixed_bytes(), stream);
  upload_tensors(stream);
}

void DevicePasses::move(const Plan& plan, cudaStream_t stream) {
  image_.move(plan);
  upload_tensors(stream);
}

void DevicePasses::upload_tensors(cudaStream_t stream) {
  tensors_ = &tensors_ring_.next(device_, image_.tensor_bytes());
  image_.write_tensors(tensors_->host());
  tensors_->use_on(stream);
  tensors_->upload(0, image_.tensor_bytes(), stream);
}

void DevicePasses::use_on(cudaStream_t stream) {
  for (Twin* used : {fixed_.get(), tensors_, scratch_.get()}) used->use_on(stream);
}

void DevicePasses::note() {
  for (Twin* used : {fixed_.get(), tensors_, scratch_.get()}) (void)used->note();
}

void DevicePasses::launch(const unsigned char* given, uint32_t rows, cudaStream_t stream) const {
  const ReducingImage::Memory memory{fixed_->device(), tensors_->device(), scratch_->device(), given, rows};
  launch_between(begin_kernel(), image_.pieces(), kBeginThreads, image_.between(memory), stream);
  for (const ReducingImage::Pass& pass : image_.passes()) {
    for (const ReducingImage::Sweep& sweep : pass.sweeps) {
      Launch launch = image_.launch(memory, sweep);
      launch_kernel(kernel_of(sweep), sweep.chunks.size(), sweep.shape.threads, sweep.shape.shared, launch, stream);
    }
    launch_between(first_level_kernel(), dim3(pass.turns, pass.parts), kLevelThreads,
                   image_.between(memory, pass.first_turn), stream);
    launch_between(finish_kernel(), pass.turns, pass.finish_threads,
                   image_.between(memory, pass.first_turn, pass.parts ? 1 : 0), stream);
    launch_between(join_kernel(), pass.groups, kJoinThreads, image_.between(memory, pass.first_group), stream);
  }
}

}  // namespace nos::cuda
