// Owns the choice of registers: a segment over values becomes a body over registers and stack vectors.
#pragma once
#include "vcode.h"

namespace nos::cpu::native {

// Registers 0 .. registers - 1 may be used. A value that finds no register lives in the stack frame, or is loaded again
// from its home.
Body allocate(const Segment& segment, int registers);

}  // namespace nos::cpu::native
