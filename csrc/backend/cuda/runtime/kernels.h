// Owns the list of kernels in this build: the interpreter by kind, and the prologue of a captured step. The host-run
// tests give their own in the place of kernels.cu.
#pragma once
#include "../common/kind.h"

namespace nos::cuda {

// What cudaLaunchKernel takes.
const void* interpreter_of(Kind kind);  // its argument is one Launch
const void* prologue_kernel();          // its argument is one Prologue; a block of kPrologueThreads for each row

}  // namespace nos::cuda
