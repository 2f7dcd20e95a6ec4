// Owns the list of kernels in this build: the interpreter by kind, without reductions and with them, what runs between
// the passes of programs with reductions, and the prologue of a captured step. The host-run
// tests give their own in the place of kernels.cu.
#pragma once
#include "../common/kind.h"

namespace nos::cuda {

// What cudaLaunchKernel takes. For quantized states there is one interpreter, which has reductions.
const void* interpreter_of(Kind kind);  // its argument is one Launch
const void* folding_interpreter_of(Kind kind);
const void* begin_kernel();  // of reducing/between.h; the argument of each is one Between
const void* first_level_kernel();
const void* finish_kernel();
const void* join_kernel();
const void* prologue_kernel();  // its argument is one Prologue; a block of kPrologueThreads for each row

}  // namespace nos::cuda
