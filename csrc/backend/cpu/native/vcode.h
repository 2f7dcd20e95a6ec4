// Owns VCode: the straight-line vector code of one fused loop, first over values, then (allocate.h) over registers.
//
// A value of a segment is computed there or has a home in memory, from which it can be loaded again at any time: an
// element of a tensor or of a scratch array, a scalar of the step, a constant, a look-up table.
#pragma once
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

// op(sources) -> result. Memory can stand for one source, one of those in the bit mask `memory` of the op's VInfo.
enum class V : uint8_t {
  add,
  sub,
  mul,
  div,
  min,  // a < b ? a : b        as vminps
  max,  // a > b ? a : b        as vmaxps
  band,
  bor,
  bxor,
  sqrt,
  floor,
  fma,      // a * b + c
  fnma,     // c - a * b. AVX-512 only, as are:
  div_fix,  // a if b is where Expander::quotient is right, else b / c; d: how far that reaches
  test,     // predicate(a, b) ? 1.0 : 0.0; c is the 1.0. AVX-512 only
  mask,     // predicate(a, b) ? all ones : 0. AVX2 only
  select,   // predicate(a, b) ? c : d
  join,     // bits of a | b, but a & b where c has ones. AVX-512 only
  sign,     // by class of a, table in b. AVX-512 only
  lookup,   // table b at a >> 29
  copy,     // a
  store,    // a, to the home of value dst
  load,     // after allocation only, as are:
  spill,
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

constexpr VInfo info(V op) {
  switch (op) {
    case V::add:
    case V::mul:
    case V::band:
    case V::bor:
    case V::bxor:
      return {2, true, 2};
    case V::sub:
    case V::div:
    case V::min:
    case V::max:
    case V::mask:
      return {2, false, 2};
    case V::lookup:
      return {2, false, 2};
    case V::sign:
      return {2, false, 2};
    case V::sqrt:
    case V::floor:
      return {1, false, 1};
    case V::fma:
    case V::fnma:
      return {3, false, 7};
    case V::div_fix:
      return {4, false, 8};
    case V::test:
      return {3, false, 6};
    case V::select:
      return {4, false, 6};
    case V::join:
      return {3, false, 4};
    case V::copy:
    case V::load:
    case V::spill:
      return {1, false, 1};
    case V::store:
      return {1, false, 0};
  }
  return {};
}

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
