#include "reducing_job.h"

#include <algorithm>
#include <vector>

#include "../common/step_block.h"
#include "../interpreter/lower.h"
#include "../reducing/between.h"
#include "../reducing/image.h"
#include "kernels.h"
#include "launch.h"
#include "ring.h"
#include "runtime.h"

namespace nos::cuda {
namespace {

cudaStream_t stream_of(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

class ReducingJob final : public Job {
 public:
  ReducingJob(Plan made, std::span<const Program* const> programs, const Place& place)
      : Job(std::move(made)),
        device_(place.device),
        image_(plan, programs, blocks_at_once(device_), properties(device_).shared_limit) {
    for (const Program* p : programs) originals_.push_back(original(*p));
    if (plan.tensors.empty()) return;
    for (const ReducingImage::Pass& pass : image_.passes())
      for (const ReducingImage::Sweep& sweep : pass.sweeps)
        if (sweep.shape.shared > kUnaskedShared) allow_shared(kernel_of(sweep), device_);
    fixed_ = take_twin(device_, image_.fixed_bytes());
    scratch_ = take_twin(device_, image_.scratch_bytes());
    image_.write_fixed(fixed_->host());
    fixed_->use_on(stream_of(place));
    fixed_->upload(0, image_.fixed_bytes(), stream_of(place));
    upload_tensors(stream_of(place));
  }

  bool serves(std::span<const Program* const> programs) const override {
    return std::ranges::equal(originals_, programs,
                              [](const auto& mine, const Program* program) { return mine == kept(*program); });
  }
  void move(const Place& place) override {
    if (plan.tensors.empty()) return;
    const OnDevice on(device_);
    image_.move(plan);
    upload_tensors(stream_of(place));
  }
  int64_t busy() const override { return 0; }  // launching takes no time worth counting
  void get_ready(const StepArgs&) override {}
  void run(const StepArgs& args, std::span<const Program* const>, const Place& place) override {
    if (plan.tensors.empty()) return;
    const OnDevice on(device_);
    const cudaStream_t stream = stream_of(place);
    Twin& given = given_.next(device_, step_block_bytes(Kind::f64, args));
    write_step_block(Kind::f64, args, given.host());
    for (Twin* used : {fixed_.get(), tensors_, scratch_.get(), &given}) used->use_on(stream);
    given.upload(0, step_block_bytes(Kind::f64, args), stream);
    launch_all({fixed_->device(), tensors_->device(), scratch_->device(), given.device(),
                static_cast<uint32_t>(args.num_rows)},
               stream);
  }

 private:
  // What tells that a program is the one that the job was made of.
  static std::shared_ptr<const void> kept(const Program& p) {
    if (p.has_reductions()) return p.kept.passes;
    return p.kept.cuda_code;
  }
  static std::shared_ptr<const void> original(const Program& p) {
    if (p.has_reductions()) return passes_of(p, false);
    return lowered(p);
  }
  static const void* kernel_of(const ReducingImage::Sweep& sweep) {
    return sweep.folds ? folding_interpreter_of(sweep.kind) : interpreter_of(sweep.kind);
  }

  void upload_tensors(cudaStream_t stream) {
    tensors_ = &tensors_ring_.next(device_, image_.tensor_bytes());
    image_.write_tensors(tensors_->host());
    tensors_->use_on(stream);
    tensors_->upload(0, image_.tensor_bytes(), stream);
  }

  void launch_all(const ReducingImage::Memory& memory, cudaStream_t stream) const {
    launch_between(begin_kernel(), image_.pieces(), kBeginThreads, image_.between(memory), stream);
    for (const ReducingImage::Pass& pass : image_.passes()) {
      for (const ReducingImage::Sweep& sweep : pass.sweeps) {
        Launch launch = image_.launch(memory, sweep);
        launch_kernel(kernel_of(sweep), sweep.chunks.size(), sweep.shape.threads, sweep.shape.shared, launch, stream);
      }
      launch_between(finish_kernel(), pass.turns, pass.finish_threads, image_.between(memory, pass.first_turn), stream);
      launch_between(join_kernel(), pass.groups, kJoinThreads, image_.between(memory, pass.first_group), stream);
    }
  }
  static void launch_between(const void* kernel, uint32_t blocks, int threads, Between between, cudaStream_t stream) {
    if (!blocks) return;
    void* arguments[] = {&between};
    check(cudaLaunchKernel(kernel, dim3(blocks), dim3(static_cast<unsigned>(threads)), arguments, 0, stream),
          "launching the numbers between two passes");
  }

  const int device_;
  ReducingImage image_;
  std::vector<std::shared_ptr<const void>> originals_;
  std::shared_ptr<Twin> fixed_, scratch_;
  Ring tensors_ring_, given_;
  Twin* tensors_ = nullptr;  // the ring's latest
};

}  // namespace

std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs, const Place& place) {
  return std::make_shared<ReducingJob>(std::move(plan), programs, place);
}

}  // namespace nos::cuda
