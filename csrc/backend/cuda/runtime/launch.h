// Owns the launch of a kernel over chunks of tensors.
#pragma once
#include <cuda_runtime_api.h>

#include "../common/records.h"

namespace nos::cuda {

// How many blocks run at once when every multiprocessor of a device is full.
int blocks_at_once(int device);

// A launch that needs more dynamic shared memory than this asks for it first. Every kernel gets 48 KB without asking.
inline constexpr size_t kUnaskedShared = 40 * 1024;  // bytes

// Lets a kernel have more than the 48 KB of dynamic shared memory that it gets without asking.
void allow_shared(const void* kernel, int device);

// Launches one block of `threads` threads for each of `chunks` chunks, with `shared` bytes of dynamic shared memory.
// Throws CudaError, or std::invalid_argument where a grid cannot have so many blocks.
void launch_kernel(const void* kernel, size_t chunks, int threads, size_t shared, Launch& launch, cudaStream_t stream);

}  // namespace nos::cuda
