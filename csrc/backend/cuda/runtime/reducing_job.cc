#include "reducing_job.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "../common/step_block.h"
#include "../interpreter/lower.h"
#include "device_passes.h"

namespace nos::cuda {
namespace {

class ReducingJob final : public Job {
 public:
  ReducingJob(Plan made, std::span<const Program* const> programs, const Place& place)
      : Job(std::move(made)), device_(place.device) {
    for (const Program* p : programs) originals_.push_back(original(*p));
    if (!plan.tensors.empty()) passes_.emplace(plan, programs, device_, false, stream_of(place));
  }

  bool serves(std::span<const Program* const> programs) const override {
    return std::ranges::equal(originals_, programs,
                              [](const auto& mine, const Program* program) { return mine == kept(*program); });
  }
  void move(const Place& place) override {
    if (!passes_) return;
    const OnDevice on(device_);
    passes_->move(plan, stream_of(place));
  }
  int64_t busy() const override { return 0; }  // launching takes no time worth counting
  void get_ready(const StepArgs&) override {}
  void run(const StepArgs& args, std::span<const Program* const>, const Place& place) override {
    if (!passes_) return;
    const OnDevice on(device_);
    const cudaStream_t stream = stream_of(place);
    // The norm stays on the device: whoever wants it here would have to wait for it.
    if (args.gradient_norm) *args.gradient_norm = std::numeric_limits<double>::quiet_NaN();
    const size_t bytes = step_block_bytes(Kind::f64, args);
    Twin& given = given_.next(device_, bytes);
    write_step_block(Kind::f64, args, given.host());
    given.use_on(stream);
    passes_->use_on(stream);
    given.upload(0, bytes, stream);
    passes_->launch(given.device(), static_cast<uint32_t>(args.num_rows), stream);
  }

 private:
  // What tells that a program is the one that the job was made of.
  static std::shared_ptr<const void> kept(const Program& p) {
    if (p.has_tensor_scalars()) return p.kept.passes;
    return p.kept.cuda_code;
  }
  static std::shared_ptr<const void> original(const Program& p) {
    if (p.has_tensor_scalars()) return passes_of(p, false);
    return lowered(p);
  }

  const int device_;
  std::vector<std::shared_ptr<const void>> originals_;
  std::optional<DevicePasses> passes_;  // none where there is nothing to do
  Ring given_;                          // the call's step block
};

}  // namespace

std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs, const Place& place) {
  return std::make_shared<ReducingJob>(std::move(plan), programs, place);
}

}  // namespace nos::cuda
