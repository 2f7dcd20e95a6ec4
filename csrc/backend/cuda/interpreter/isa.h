// Owns the opcodes of the CUDA interpreter, expanded from isa.def.
//
// Register slots 0 .. 5 hold p, g and the first four states, numbered as the program's values; the kernel loads and
// stores them. Slots of states that a program lacks, and all slots from 6 on, hold temporaries; kU and kT are the
// second and the third operand of ops that need one in a fixed place. Further states are read and written by ldm and
// stm; further temporaries are overflow slots in shared memory, which has room there for every element that a thread
// holds.
#pragma once
#include "../common/records.h"

namespace nos::cuda {

inline constexpr uint32_t kRegs = 9, kRegInputs = 6;
static_assert(kRegInputs <= kSlots);
inline constexpr uint32_t kU = kRegs - 2, kT = kRegs - 1;

enum Opcode : uint32_t {
#define NOS_SLOT_MOVE(id)                                                                                          \
  k_##id, k_##id##_0 = k_##id, k_##id##_1, k_##id##_2, k_##id##_3, k_##id##_4, k_##id##_5, k_##id##_6, k_##id##_7, \
          k_##id##_8,
#define NOS_SLOT(id, value) NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value) k1_##id,
#define NOS_MOVE(id) k1_##id,
#define NOS_MOVE_AT(id) k1_##id,
#define NOS_DRAW(id) k1_##id,
#define NOS_FOLD(id) k1_##id,
#include "isa.def"
#undef NOS_SLOT_MOVE
#undef NOS_SLOT
#undef NOS_ONE
#undef NOS_MOVE
#undef NOS_MOVE_AT
#undef NOS_DRAW
#undef NOS_FOLD
  kEnd  // of a program
};
static_assert(k_add_8 == k_add + kRegs - 1, "one opcode per register slot");

inline constexpr uint32_t kScalarFlag = 0x80000000u;  // in Ins::op: arg is a scalar of the row, the immediate

}  // namespace nos::cuda
