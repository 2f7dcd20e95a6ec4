// Owns Kind: by what a kernel computes in and what its tensors are stored as, the tensors of a call are divided into
// launches. Beside it stand the sizes of a block, which the register budget of the kernels rests on.
#pragma once

namespace nos::cuda {

// All slots float32; float32, bfloat16 and float16 in any mix, computed in float32; all slots float64.
enum class Kind { f32, mixed, f64 };

inline constexpr int kElements32 = 8, kElements64 = 4;  // elements that a thread of the interpreter holds
inline constexpr int kMostThreads = 256;                // of a block
inline constexpr int kBlocksPerSm = 2;                  // as many run at once on a multiprocessor

}  // namespace nos::cuda
