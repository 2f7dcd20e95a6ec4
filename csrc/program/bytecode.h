// Owns the encoding of a program as bytes. Little endian, no padding:
//
//   "NOSP"  u16 version  u16 states  u16 hypers  u16 constants  u16 scalar_code  u16 code  u16 name_bytes
//   name[name_bytes]                                     rule name
//   states      x { u16 bytes; name; in version 2: u8 per_tensor }
//   hypers      x { u16 bytes; name; u8 has_default; f64 default }     hypers[0] is lr, the one without a default
//   constants   x f64
//   scalar_code x Instr                                  once per step, in double, on the host
//   code        x Instr                                  once per element, in the compute type of the tensor; or once
//                                                        per tensor, in double
//   (1 + states) x u16 operand                           outputs: new p, then each new state in order
//
//   Instr, 8 bytes:  | op u8 | 0 u8 | a u16 | b u16 | c u16 |       unused operands are 0
//
//   operand, 16 bits:  0 vvv vvvv vvvv vvvv   per-element value v: 0 p, 1 g, 2.. states, then one per per-element
//                                             instruction
//                      1 sss ssss ssss ssss   scalar s: 0 t, 1 T, 2.. hypers, then constants, then one per scalar
//                                             instruction; then tensor scalars: the states that are kept as one number
//                                             per tensor, then one per per-tensor instruction
//
// Version 1 has no tensor scalars: no reductions, and every state has the shape of its parameter. A program that needs
// none is written in version 1. In version 2, which has either, an instruction of the code is per tensor if it is a
// reduction, or if it reads tensor scalars and no per-element value. Both codes are in single-assignment form: an
// instruction defines the next id of its kind and may read smaller ids only. A random op carries its site number in c:
// two draws of one program never share a site.
#pragma once
#include <cstdint>

namespace nos::bytecode {

inline constexpr char kMagic[4] = {'N', 'O', 'S', 'P'};
inline constexpr uint16_t kElementwise = 1, kWithReductions = 2;  // versions

inline constexpr int kMaxStates = 8;
inline constexpr int kMaxHypers = 64;
inline constexpr int kMaxConstants = 1024;
inline constexpr int kMaxScalarCode = 1024;
inline constexpr int kMaxCode = 4096;
inline constexpr int kMaxNameBytes = 128;
inline constexpr int kMaxSites = 4095;  // site 4095 is kept for stochastic rounding of results

inline constexpr uint16_t kScalarBit = 0x8000;
inline constexpr int kP = 0, kG = 1, kFirstState = 2;         // value ids
inline constexpr int kStep = 0, kTotal = 1, kFirstHyper = 2;  // scalar ids

}  // namespace nos::bytecode

namespace nos {

// 16-bit reference to a per-element value or to a scalar.
struct Operand {
  uint16_t bits = 0;
  constexpr bool is_scalar() const { return (bits & bytecode::kScalarBit) != 0; }
  constexpr int id() const { return bits & 0x7fff; }
  constexpr bool operator==(const Operand&) const = default;
};

}  // namespace nos
