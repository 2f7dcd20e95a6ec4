// Owns the opcodes of the CUDA interpreter, expanded from isa.def.
//
// Register slots 0 .. 5 hold p, g and the first four states (the program's value ids); a kernel loads and stores them.
// Slots of states that a program lacks, and the rest, are temporaries, with kU and kT as the second and third operand
// of ops that need one in a fixed place. Further states are read and written by ldm and stm; further temporaries are
// overflow slots in shared memory, one element per thread and element held.
#pragma once
#include "tables.h"

namespace nos::cuda {

inline constexpr uint32_t kRegs = 9, kRegInputs = 6;
inline constexpr uint32_t kU = kRegs - 2, kT = kRegs - 1;

enum SlotOp : uint32_t {
#define NOS_SLOT(id, value) k_##id,
#define NOS_SLOT_MOVE(id) k_##id,
#define NOS_ONE(id, value)
#define NOS_MOVE(id)
#include "isa.def"
#undef NOS_SLOT
#undef NOS_SLOT_MOVE
#undef NOS_ONE
#undef NOS_MOVE
  kSlotOps
};

enum OneOp : uint32_t {
  kBeforeOneOps = kSlotOps * kRegs - 1,
#define NOS_SLOT(id, value)
#define NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value) k1_##id,
#define NOS_MOVE(id) k1_##id,
#include "isa.def"
#undef NOS_SLOT
#undef NOS_SLOT_MOVE
#undef NOS_ONE
#undef NOS_MOVE
  kEnd  // and everything above it ends the program
};

// The opcode of a slot op for register slot s.
constexpr uint32_t on_slot(SlotOp op, uint32_t s) { return op * kRegs + s; }

inline constexpr uint32_t kScalarFlag = 0x80000000u;  // in Ins::op: arg is a scalar of the row, the immediate

}  // namespace nos::cuda
