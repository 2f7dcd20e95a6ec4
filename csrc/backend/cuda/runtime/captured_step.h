// Owns CapturedStep: a step that a CUDA graph can hold, because its launches read everything that may change from
// device memory. Callers hold the GIL.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "../captured/image.h"
#include "../interpreter/shape.h"
#include "runtime.h"

namespace nos::cuda {

class CapturedStep {
 public:
  CapturedStep(const Plan& plan, std::span<const Program* const> programs, std::span<const uint32_t> row_program,
               Capacity capacity, int device, cudaStream_t stream);

  ~CapturedStep();       // allowed anywhere, also inside somebody's capture
  static void settle();  // takes the memory of steps that are gone back; waits for the device; not in a capture
  CapturedStep(const CapturedStep&) = delete;
  CapturedStep& operator=(const CapturedStep&) = delete;

  CapturedImage& image() { return image_; }
  int device() const { return device_; }
  void begin_edit();                                                                // before a change through image()
  void upload(std::span<const CapturedImage::Range> changed, cudaStream_t stream);  // after it; not in a capture
  void launch(cudaStream_t stream);                                                 // may be captured
  uint32_t steps_done(cudaStream_t stream);                                         // waits for the stream

 private:
  const int device_;
  CapturedImage image_;
  std::shared_ptr<Twin> memory_;
  std::vector<Shape> shapes_;  // of each batch
  bool was_captured_ = false;
};

}  // namespace nos::cuda
