// Owns the allocation of registers, which turns a ValueLoop into a RegisterLoop.
#pragma once
#include "loop.h"

namespace nos::cpu::native {

// Uses registers 0 .. registers - 1. A value that gets no register is spilled into the stack frame, or loaded again
// from its home in memory.
RegisterLoop allocate(const ValueLoop& loop, int registers);

}  // namespace nos::cpu::native
