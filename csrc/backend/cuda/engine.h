// Owns the CUDA back-end: jobs on a device, their launches, and steps that a CUDA graph can capture. Callers hold the
// GIL.
#pragma once
#include <memory>
#include <span>

#include "captured.h"
#include "jit/jit.h"
#include "job.h"
#include "runtime.h"

namespace nos::cuda {

// A job whose tables are on a device. May be run many times, as long as the plan's pointers stay valid.
class Ready {
 public:
  Ready(const Plan& plan, std::span<const Program* const> programs, int device, cudaStream_t stream);

  const Job& job() const { return job_; }
  void move(const Plan& plan, cudaStream_t stream);  // to other addresses; see move_tensors
  // One launch per kind of tensors on `stream`. programs: those of the constructor, for tier 2. Throws CudaError.
  void run(const StepArgs& args, std::span<const Program* const> programs, cudaStream_t stream);

 private:
  // Memory used in turn, so that the host need not wait for the last step before it writes the next.
  class Ring {
   public:
    Twin& next(int device, size_t bytes);

   private:
    static constexpr size_t kTurns = 4;
    std::vector<std::shared_ptr<Twin>> twins_;
    size_t turn_ = 0;
  };
  struct Placed {
    size_t tensors, chunks;  // byte offsets: into the records, into the tables
    Shape shape;
  };
  void upload_records(cudaStream_t stream);

  const int device_;
  Job job_;
  size_t programs_at_, code_at_;
  std::vector<Placed> parts_;
  std::shared_ptr<Twin> tables_;  // programs, code, chunks
  Ring records_ring_, step_blocks_;
  Twin* records_ = nullptr;  // of the tensors; the ring's latest
};

// A step whose launches read everything that may change from device memory.
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
  std::vector<Shape> shapes_;
  bool was_captured_ = false;
};

}  // namespace nos::cuda
