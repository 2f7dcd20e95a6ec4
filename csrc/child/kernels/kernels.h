// Declares the kernels of one instruction set: NOS_CHILD_ISA names it, the compiler's options decide it.
#pragma once
#include "../image.h"

namespace nos::child::NOS_CHILD_ISA {

#define NOS_KERNEL(result, name, arguments) result name arguments;
#include "kernels.def"
#undef NOS_KERNEL

}  // namespace nos::child::NOS_CHILD_ISA
