// Owns Opcode, with one constant of it for each row of opcodes.def. Beside them stand the immediate operands and tables
// that a few of the instructions take.
#pragma once
#include <cstdint>

namespace nos::cpu::native::x86 {

struct Opcode {
  enum Map : uint8_t { of0f = 1, of0f38 = 2, of0f3a = 3 } map;
  enum Prefix : uint8_t { none = 0, with66 = 1, withf3 = 2 } prefix;
  uint8_t byte;
  uint8_t extension;
  bool operator==(const Opcode&) const = default;
};

#define NOS_OPCODE(mnemonic, map, prefix, byte, extension) \
  inline constexpr Opcode mnemonic{Opcode::map, Opcode::prefix, byte, extension};
#include "opcodes.def"
#undef NOS_OPCODE

// The three forms of one operation. They differ in the source that the result replaces.
struct FmaForms {
  Opcode replaces_factor;        // dst * m + v
  Opcode replaces_other_factor;  // v * dst + m
  Opcode replaces_addend;        // v * m + dst
};
inline constexpr FmaForms kMultiplyAdd{vfmadd132ps, vfmadd213ps, vfmadd231ps};
inline constexpr FmaForms kNegatedMultiplyAdd{vfnmadd132ps, vfnmadd213ps, vfnmadd231ps};

inline constexpr int kRoundDown = 9;  // vroundps, vrndscaleps: to a whole number; do not report inexact results
inline constexpr int kNotLess = 5;    // predicate of vpcmpud
inline constexpr int kToNearest = 0;  // vcvtps2ph: ties to even
inline constexpr int kNoFaults = 0;   // vfixupimmps: report nothing
// vpternlogd: bit (4 dst + 2 v + m) is the result for these three bits.
inline constexpr int kOrButAndWhereM = 0xd4;    // m ? dst & v : dst | v
inline constexpr int kOrButAndWhereDst = 0x8e;  // dst ? v & m : v | m

}  // namespace nos::cpu::native::x86
