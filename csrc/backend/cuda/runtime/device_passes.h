// Owns DevicePasses: programs with reductions on a device, which are the memory of their image (reducing/image.h) and
// its launches. The host waits for nothing.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>
#include <span>

#include "../reducing/image.h"
#include "ring.h"
#include "runtime.h"

namespace nos::cuda {

class DevicePasses {
 public:
  // Uploads on the stream. for_capture: all that a capture does not allow is done now, too. The device must be the
  // current one, here and below.
  DevicePasses(const Plan& plan, std::span<const Program* const> programs, int device, bool for_capture,
               cudaStream_t stream);

  void move(const Plan& plan, cudaStream_t stream);  // takes over the addresses of its gradients
  void use_on(cudaStream_t stream);                  // before launch(); see Twin
  void note();
  // given: the step block of the call in device memory, in double, with so many rows.
  void launch(const unsigned char* given, uint32_t rows, cudaStream_t stream) const;

 private:
  void upload_tensors(cudaStream_t stream);

  const int device_;
  ReducingImage image_;
  std::shared_ptr<Twin> fixed_, scratch_;
  Ring tensors_ring_;
  Twin* tensors_ = nullptr;  // the ring's latest
};

}  // namespace nos::cuda
