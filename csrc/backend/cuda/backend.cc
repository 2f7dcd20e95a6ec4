// CUDA behind the contract of back-ends: every step on the device and the stream of its call.
#include "../backend.h"

#include "engine.h"
#include "runtime.h"

namespace nos {
namespace {

cudaStream_t stream_of(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

class CudaJob final : public Job {
 public:
  CudaJob(Plan made, std::span<const Program* const> programs, const Place& place)
      : Job(std::move(made)), ready_(plan, programs, place.device, stream_of(place)) {}

  bool serves(std::span<const Program* const> programs) const override {
    return std::ranges::equal(ready_.job().lowered, programs, [](const auto& mine, const Program* program) {
      return mine == program->kept.cuda_code;
    });
  }
  void move(const Place& place) override {
    const cuda::OnDevice on(place.device);
    ready_.move(plan, stream_of(place));
  }
  int64_t busy() const override { return 0; }  // launching
  void get_ready(const StepArgs&) override {}
  void run(const StepArgs& args, std::span<const Program* const> programs, const Place& place) override {
    const cuda::OnDevice on(place.device);
    ready_.run(args, programs, stream_of(place));
  }

 private:
  cuda::Ready ready_;
};

class Cuda final : public Backend {
 public:
  const char* name() const override { return "cuda"; }
  bool has_streams() const override { return true; }
  void check(const Place& place) const override {
    const cuda::OnDevice on(place.device);
    if (cuda::is_capturing(stream_of(place)))
      throw std::runtime_error(
          "this call is inside a CUDA graph capture, which would freeze lr, the step and the addresses of its tables; "
          "make an optimizer with capturable=True, or a nos_ext.CapturedStep before the capture, and call that inside "
          "it");
  }
  std::shared_ptr<Job> prepare(Plan plan, std::span<const Program* const> programs, const Place& place) const override {
    const cuda::OnDevice on(place.device);
    return std::make_shared<CudaJob>(std::move(plan), programs, place);
  }
};

}  // namespace

const Backend& cuda_backend() {
  static const Cuda backend;
  return backend;
}

}  // namespace nos
