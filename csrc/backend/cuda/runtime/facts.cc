// What a bug report needs to know of CUDA.
#include <cuda_runtime_api.h>

#include "../../backend.h"
#include "../jit/jit.h"

namespace nos {

Facts cuda_facts() {
  std::vector<std::string> devices;
  std::string status = "on";
  int count = 0;
  const cudaError_t answer = cudaGetDeviceCount(&count);
  if (answer != cudaSuccess) {
    (void)cudaGetLastError();  // it must not be found again by the next caller
    status = std::string("built, but there is no device to use: ") + cudaGetErrorString(answer) + " (" +
             cudaGetErrorName(answer) + ")";
    count = 0;
  }
  for (int d = 0; d < count; ++d) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, d) != cudaSuccess) continue;
    devices.push_back(std::string(p.name) + ", sm_" + std::to_string(p.major) + std::to_string(p.minor));
  }
  return {{"enabled", true},
          {"toolkit", NOS_CUDA_TOOLKIT},
          {"architectures", NOS_CUDA_ARCHITECTURES},
          {"devices", devices},
          {"status", status},
          {"jit", cuda::jit::status()}};
}

}  // namespace nos
