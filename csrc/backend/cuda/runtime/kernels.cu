// Compiles the shared templates to the kernels of the device.
#include "../captured/prologue.h"
#include "../interpreter/kernel.h"
#include "kernels.h"

namespace nos::cuda {
namespace {

struct DeviceContext {
  __device__ __forceinline__ uint32_t thread() const { return threadIdx.x; }
  __device__ __forceinline__ uint32_t threads() const { return blockDim.x; }
};

}  // namespace

template <class T, int E, bool Mixed>
__global__ void __launch_bounds__(kMostThreads, kBlocksPerSm) interpreter(const __grid_constant__ Launch launch) {
  __shared__ Shared<T> shared;
  extern __shared__ __align__(16) unsigned char dynamic[];
  auto* code = reinterpret_cast<Decoded<T>*>(dynamic);
  const DeviceContext context;
  set_up(context, launch, blockIdx.x, shared, code);
  __syncthreads();
  run<T, E, Mixed>(context, shared, code, reinterpret_cast<T*>(dynamic + launch.code_room) + threadIdx.x);
}

__global__ void __launch_bounds__(kPrologueThreads) prologue(const __grid_constant__ Prologue a) {
  extern __shared__ __align__(16) unsigned char dynamic[];
  auto* slots = reinterpret_cast<double*>(dynamic);
  const DeviceContext context;
  gather(context, a, blockIdx.x, slots);
  __syncthreads();
  evaluate(context, a, blockIdx.x, slots);
  __syncthreads();
  publish(context, a, blockIdx.x, slots);
}

const void* prologue_kernel() { return reinterpret_cast<const void*>(&prologue); }

const void* interpreter_of(Kind kind) {
  switch (kind) {
    case Kind::f32:
      return reinterpret_cast<const void*>(&interpreter<float, kElements32, false>);
    case Kind::mixed:
      return reinterpret_cast<const void*>(&interpreter<float, kElements32, true>);
    case Kind::f64:
      break;
  }
  return reinterpret_cast<const void*>(&interpreter<double, kElements64, false>);
}

}  // namespace nos::cuda
