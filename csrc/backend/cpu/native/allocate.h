// Owns the choice of registers: a ValueLoop becomes a RegisterLoop.
#pragma once
#include "loop.h"

namespace nos::cpu::native {

// Registers 0 .. registers - 1 may be used. A value that finds no register lives in the stack frame, or is loaded again
// from its home.
RegisterLoop allocate(const ValueLoop& loop, int registers);

}  // namespace nos::cpu::native
