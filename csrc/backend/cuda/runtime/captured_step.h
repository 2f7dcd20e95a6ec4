// Owns the captured step of the CUDA back-end: its launches read everything that may change from an image in the
// device's memory (captured/image.h).
#pragma once
#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "../../captured.h"
#include "../captured/image.h"
#include "../interpreter/shape.h"
#include "device_passes.h"
#include "runtime.h"

namespace nos::cuda {

class CapturedStep final : public nos::CapturedStep {
 public:
  // in_capture: it may be made and set inside a capture. The place's device must be the current one.
  CapturedStep(const Plan& plan, std::span<const Program* const> programs, std::span<const uint32_t> row_program,
               Capacity capacity, bool in_capture, const Place& place);
  ~CapturedStep() override;

  void set_row(uint32_t r, uint64_t seed, double total_steps, std::span<const double> hypers,
               std::span<const void* const> sources, uint64_t wide, const Place& place) override;
  void set_head(uint32_t steps_done, double factor, Rounding rounding, const double* counter,
                const Place& place) override;
  void load(uint32_t k, const Program& program, const Place& place) override;
  void launch(const Place& place) override;
  uint32_t steps_done(const Place& place) override;

  static void settle();  // takes the memory of steps that are gone back; waits for the device; not in a capture

 private:
  template <class F>
  void uploading(cudaStream_t stream, const F& work) const;
  template <class F>
  void edit(const Place& place, const F& change);

  const int device_;
  const bool in_capture_;
  CapturedImage image_;
  std::shared_ptr<Twin> memory_;
  std::shared_ptr<DevicePasses> passes_;  // null where no rule has reductions
  std::vector<Shape> shapes_;             // of each batch
  bool was_captured_ = false;
};

}  // namespace nos::cuda
