// Compiles the shared templates to the kernels of the device.
#include "../captured/prologue.h"
#include "../interpreter/kernel.h"
#include "../reducing/between.h"
#include "kernels.h"

namespace nos::cuda {
namespace {

// What fold_lanes asks of the lanes of a warp.
template <Fold F>
struct Lanes {
  const uint32_t lane;
  __device__ __forceinline__ double exchange(double v, int mask) const { return __shfl_xor_sync(~0u, v, mask); }
  __device__ __forceinline__ double choose(uint32_t mask, double a, double b) const { return lane & mask ? a : b; }
  __device__ __forceinline__ double join(double a, double b) const { return fold_join<F>(a, b); }
};

struct DeviceContext {
  __device__ __forceinline__ uint32_t thread() const { return threadIdx.x; }
  __device__ __forceinline__ uint32_t threads() const { return blockDim.x; }
  template <Fold F>
  __device__ __forceinline__ void fold(const double (&y)[4], double* to) const {
    const Lanes<F> lanes{threadIdx.x & 31u};
    const double sum = fold_lanes(lanes, y);
    if (lanes.lane == 0) *to = sum;
  }
  template <class Then>
  __device__ __forceinline__ void with_largest(uint32_t x, const Then& then) const {
    __syncwarp();  // what `then` writes has been read by all lanes
#if __CUDA_ARCH__ >= 800
    then(__reduce_max_sync(~0u, x));
#else
    for (int mask = 16; mask > 0; mask /= 2) x = max(x, __shfl_xor_sync(~0u, x, mask));
    then(x);
#endif
  }
};

// Counts the threads of all blocks that work on one turn.
struct PartContext : DeviceContext {
  __device__ __forceinline__ uint32_t thread() const { return blockIdx.y * blockDim.x + threadIdx.x; }
  __device__ __forceinline__ uint32_t threads() const { return gridDim.y * blockDim.x; }
};

}  // namespace

template <class T, int E, bool Mixed, bool Folds, bool Codes = false>
__device__ __forceinline__ void interpret_chunk(const Launch& launch) {
  __shared__ Shared<T> shared;
  extern __shared__ __align__(16) unsigned char dynamic[];
  auto* code = reinterpret_cast<Decoded<T>*>(dynamic);
  const DeviceContext context;
  set_up<T, Folds, Codes>(context, launch, blockIdx.x, shared, code);
  __syncthreads();
  run<T, E, Mixed, Folds, Codes>(context, shared, code, reinterpret_cast<T*>(dynamic + launch.code_room) + threadIdx.x);
}

template <class T, int E, bool Mixed>
__global__ void __launch_bounds__(kMostThreads, kBlocksPerSm) interpreter(const __grid_constant__ Launch launch) {
  interpret_chunk<T, E, Mixed, false>(launch);
}

template <class T, bool Mixed, int Threads>
__global__ void __launch_bounds__(Threads, kBlocksPerSm) folding_interpreter(const __grid_constant__ Launch launch) {
  interpret_chunk<T, kFoldElements, Mixed, true>(launch);
}

__global__ void __launch_bounds__(kMostThreads, kBlocksPerSm)
    quantized_interpreter(const __grid_constant__ Launch launch) {
  interpret_chunk<float, kFoldElements, true, true, true>(launch);
}

__global__ void __launch_bounds__(kBeginThreads) begin(const __grid_constant__ Between a) {
  const DeviceContext context;
  copy_row(context, a, blockIdx.x);
  __syncthreads();
  read_states(context, a, blockIdx.x);
}

__global__ void __launch_bounds__(kLevelThreads) first_level(const __grid_constant__ Between a) {
  fold_part(PartContext(), a, a.first + blockIdx.x);
}

__global__ void __launch_bounds__(kMostFinishThreads) finish(const __grid_constant__ Between a) {
  const DeviceContext context;
  const uint32_t turn = a.first + blockIdx.x;
  const int levels = levels_left(a, turn);
  for (int level = static_cast<int>(a.done); level < levels; ++level) {
    fold_sums(context, a, turn, level);
    __syncthreads();
  }
  conclude(context, a, turn);
}

__global__ void __launch_bounds__(kJoinThreads) join(const __grid_constant__ Between a) {
  const DeviceContext context;
  add_totals(context, a, a.first + blockIdx.x);
  __syncthreads();
  conclude_all(context, a, a.first + blockIdx.x);
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

const void* begin_kernel() { return reinterpret_cast<const void*>(&begin); }
const void* first_level_kernel() { return reinterpret_cast<const void*>(&first_level); }
const void* finish_kernel() { return reinterpret_cast<const void*>(&finish); }
const void* join_kernel() { return reinterpret_cast<const void*>(&join); }

const void* folding_interpreter_of(Kind kind) {
  switch (kind) {
    case Kind::f32:
      return reinterpret_cast<const void*>(&folding_interpreter<float, false, kMostThreads>);
    case Kind::mixed:
      return reinterpret_cast<const void*>(&folding_interpreter<float, true, kMostThreads>);
    case Kind::quantized:
      return reinterpret_cast<const void*>(&quantized_interpreter);
    case Kind::f64:
      break;
  }
  return reinterpret_cast<const void*>(&folding_interpreter<double, false, kMostFoldThreads64>);
}

const void* interpreter_of(Kind kind) {
  switch (kind) {
    case Kind::f32:
      return reinterpret_cast<const void*>(&interpreter<float, kElements32, false>);
    case Kind::mixed:
      return reinterpret_cast<const void*>(&interpreter<float, kElements32, true>);
    case Kind::quantized:
      return reinterpret_cast<const void*>(&quantized_interpreter);
    case Kind::f64:
      break;
  }
  return reinterpret_cast<const void*>(&interpreter<double, kElements64, false>);
}

}  // namespace nos::cuda
