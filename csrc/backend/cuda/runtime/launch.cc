#include "launch.h"

#include <limits>
#include <stdexcept>

#include "../common/kind.h"
#include "runtime.h"

namespace nos::cuda {

int blocks_at_once(int device) { return properties(device).multiprocessors * kBlocksPerSm; }

void allow_shared(const void* kernel, int device) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(properties(device).shared_limit)),
        "asking for shared memory");
}

void launch_kernel(const void* kernel, size_t chunks, int threads, size_t shared, Launch& launch, cudaStream_t stream) {
  if (chunks > static_cast<size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("the tensors of one call need more than 2^31 - 1 blocks; apply the rule in pieces");
  void* arguments[] = {&launch};
  check(cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(chunks)), dim3(static_cast<unsigned>(threads)), arguments,
                         shared, stream),
        "launching the update");
}

}  // namespace nos::cuda
