// The table of kernels of one instruction set.
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {

#define NOS_STRING_OF(x) #x
#define NOS_STRING(x) NOS_STRING_OF(x)
extern const Kernels g_kernels;
const Kernels g_kernels = {
    NOS_STRING(NOS_CHILD_ISA),
#define NOS_KERNEL(result, name, arguments) name,
#include "kernels.def"
#undef NOS_KERNEL
};

}  // namespace nos::child::NOS_CHILD_ISA
