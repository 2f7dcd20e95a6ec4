// Owns VCode: the straight-line vector code of one fused loop, first over values, then (allocate.h) over registers.
//
// A value of a segment is computed there or has a home in memory, from which it can be loaded again at any time: an
// element of a tensor or of a scratch array, a scalar of the step, a constant, a look-up table.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nos::cpu::native {

struct Home {
  enum Kind : uint8_t {
    computed,
    slot,      // index: slot of the plan; moves with the loop
    slot_f16,  // the same in half precision: converted by every load and store. AVX-512 only
    slot_bf16,
    scratch,   // index: scratch array; moves with the loop
    scalar,    // index: in the scalar row
    constant,  // bits
    table,     // index: of the table
    spill,     // index: vector in the stack frame (after allocation only)
  } kind = computed;
  uint32_t index = 0;  // or the bits of a constant
  bool operator==(const Home&) const = default;
  bool in_tensor() const { return kind == slot || is_half(); }
  bool is_half() const { return kind == slot_f16 || kind == slot_bf16; }
  bool uniform() const { return kind == scalar || kind == constant || kind == table; }
};

// op(sources) -> result; see vops.def.
enum class V : uint8_t {
#define NOS_V(id, ...) id,
#include "vops.def"
#undef NOS_V
};

// Predicates of vcmpps: ordered ones are false for a NaN.
enum Predicate : uint8_t {
  kEq = 0x00,
  kUnordered = 0x03,
  kNotEqual = 0x04,
  kNotEqualOrdered = 0x0c,
  kGe = 0x1d,
  kGt = 0x1e,
  kLt = 0x11,
  kLe = 0x12
};

struct VInfo {
  uint8_t sources;
  bool commutes;
  uint8_t memory;  // bit k: source k may be memory
};

inline constexpr VInfo kVInfo[] = {
#define NOS_V(id, sources, commutes, memory) {sources, commutes != 0, memory},
#include "vops.def"
#undef NOS_V
};
constexpr const VInfo& info(V op) { return kVInfo[static_cast<size_t>(op)]; }

struct VInstr {
  V op;
  uint8_t predicate = 0;
  uint16_t dst = 0;
  uint16_t src[4] = {0, 0, 0, 0};
};

// One fused loop over values.
struct Segment {
  std::vector<Home> values;
  std::vector<VInstr> code;
};

inline constexpr uint8_t kMemory = 0xff;  // as a register number: the instruction's memory operand

// An instruction over registers.
struct MInstr {
  V op;
  uint8_t predicate = 0;
  uint8_t dst = 0;
  uint8_t src[4] = {0, 0, 0, 0};
  Home memory{};
};

// One fused loop over registers. Uniform values in `hoisted` are loaded once before the loop.
struct Body {
  std::vector<MInstr> code;
  std::vector<MInstr> hoisted;  // loads
  int spills = 0;               // vectors of stack
};

}  // namespace nos::cpu::native
