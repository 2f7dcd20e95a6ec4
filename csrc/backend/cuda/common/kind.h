// Owns Kind, by which the tensors of a call are divided into launches: the type in which a kernel computes and the
// types in which tensors are stored. Beside it stand the sizes of a block, on which the register budget of the kernels
// rests.
#pragma once

namespace nos::cuda {

// f32: all slots are float32. mixed: slots are float32, bfloat16 and float16, computed in float32. f64: all are
// float64. quantized: as mixed, but states may be codes, too.
enum class Kind { f32, mixed, f64, quantized };
inline constexpr int kKinds = 4;

inline constexpr int kElements32 = 8, kElements64 = 4;  // elements that a thread of the interpreter holds
inline constexpr int kMostThreads = 256;                // of a block
// A kernel with reductions holds kFoldElements (interpreter/fold.h), so where these are double there are fewer threads.
inline constexpr int kMostFoldThreads64 = 128;
inline constexpr int kBlocksPerSm = 2;  // so many blocks run at the same time on a multiprocessor

}  // namespace nos::cuda
