// Owns the list of kernels in this build: the interpreter by compute type and storage, and the captured step's
// prologue.
#pragma once

namespace nos::cuda {

// One launch has one kind: all slots float32; float32, bfloat16 and float16 in any mix; all slots float64.
enum class Kind { f32, mixed, f64 };

inline constexpr int kElements32 = 8, kElements64 = 4;  // elements that a thread holds
inline constexpr int kMostThreads = 256;
inline constexpr int kBlocksPerSm = 2;  // occupancy that the register budget is made for

const void* interpreter_of(Kind kind);  // for cudaLaunchKernel; its argument is one Launch
const void* prologue_kernel();          // its argument is one Prologue; one block of kPrologueThreads per row
inline constexpr int kPrologueThreads = 32;

}  // namespace nos::cuda
