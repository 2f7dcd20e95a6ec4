// Says which back-end serves which kind of device in this build.
#include "backend.h"

#ifdef NOS_HAVE_CUDA
#include "cuda/jit/jit.h"
#include "cuda/runtime/runtime.h"
#endif

namespace nos {

#ifdef NOS_HAVE_CUDA

const Backend& backend_of(bool on_cuda) { return on_cuda ? cuda_backend() : cpu_backend(); }

CudaReport cuda_report() {
  CudaReport out{true, NOS_CUDA_TOOLKIT, NOS_CUDA_ARCHITECTURES, "on", cuda::jit::status(), {}};
  std::string problem;
  out.devices = cuda::device_names(problem);
  if (!problem.empty()) out.status = "built, but there is no device to use: " + problem;
  return out;
}

#else

const Backend& backend_of(bool on_cuda) {
  if (on_cuda)
    throw TensorError("params are on a CUDA device and this build has no CUDA back-end (" NOS_CUDA_STATUS
                      "); move the tensors to the CPU");
  return cpu_backend();
}

CudaReport cuda_report() { return {false, NOS_CUDA_TOOLKIT, "", NOS_CUDA_STATUS, "off: no CUDA", {}}; }

#endif

}  // namespace nos
