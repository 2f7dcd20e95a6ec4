// Owns the two forms of a fused loop's body. A ValueLoop is straight-line vector code over values, which expand.h
// appends. A RegisterLoop is the same code over registers and vectors of the stack frame. allocate.h turns the first
// into the second, and x86/emit.h turns that into machine code.
//
// A value is either computed in the loop or has a home in memory, from which it can be loaded again at any time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "../../../plan/plan.h"

namespace nos::cpu::native {

enum class Target : uint8_t { avx2, avx512 };

struct Home {
  enum Kind : uint8_t {
    computed,  // the value has no home
    slot,      // index: slot of the plan; the address advances with the loop
    slot_f16,  // the same, stored in half precision: every load and store converts (AVX-512 only)
    slot_bf16,
    slot_i8,  // the same, stored in codes, which are only loaded (AVX-512 only); scales: the scratch array with theirs
    slot_u8,
    scratch,   // index: scratch array; the address advances with the loop
    scalar,    // index: in the scalar row
    constant,  // index: the bits of the constant
    table,     // index: look-up table
    spill,     // index: vector in the stack frame (only after allocation)
  } kind = computed;
  uint32_t index = 0;
  uint32_t scales = 0;  // of codes only
  bool operator==(const Home&) const = default;
  bool in_tensor() const { return kind == slot || is_half() || is_code(); }
  bool is_half() const { return kind == slot_f16 || kind == slot_bf16; }
  bool is_code() const { return kind == slot_i8 || kind == slot_u8; }
  bool uniform() const { return kind == scalar || kind == constant || kind == table; }  // the same for all elements
};

// A scratch array holds one block and one vector more, so that a loop may store its last vector whole.
inline constexpr int kMaxBlock = 1024;                     // elements
inline constexpr int kScratchStride = kMaxBlock * 4 + 64;  // bytes

// A loop that decodes takes one of the registers that hold pointers of slots: for the element of the block at which the
// numbers begin that share a scale with this turn's.
inline constexpr int kMostSlotsWithCodes = kMaxSlots - 1;

// What one instruction of a loop does. vops.def lists them, with a comment for each.
enum class VOp : uint8_t {
#define NOS_VOP(id, ...) id,
#include "vops.def"
#undef NOS_VOP
};

struct VOpInfo {
  std::string_view name;
  uint8_t sources;
  bool commutes;   // sources 0 and 1 may be exchanged
  uint8_t memory;  // bit k: source k may be in memory
  double ns;       // per element
};

inline constexpr VOpInfo kVOps[] = {
#define NOS_VOP(id, sources, commutes, memory, ns, avx2, avx512) {#id, sources, commutes != 0, memory, ns},
#include "vops.def"
#undef NOS_VOP
};
constexpr const VOpInfo& info(VOp op) { return kVOps[static_cast<size_t>(op)]; }

// The predicates of comparisons, with the numbers that x86 gives them. The ordered ones are false for a NaN.
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

struct ValueInstr {
  VOp op;
  uint8_t predicate = 0;
  uint16_t dst = 0;
  uint16_t src[4] = {0, 0, 0, 0};
};

struct ValueLoop {
  std::vector<Home> values;
  std::vector<ValueInstr> code;
};

inline constexpr uint8_t kMemory = 0xff;  // in the place of a register's number: the memory operand of the instruction

struct RegisterInstr {
  VOp op;
  uint8_t predicate = 0;
  uint8_t dst = 0;
  uint8_t src[4] = {0, 0, 0, 0};
  Home memory{};
};

struct RegisterLoop {
  std::vector<RegisterInstr> code;
  std::vector<RegisterInstr> hoisted;  // loads of uniform values, which run once before the loop
  int spills = 0;                      // vectors of the stack frame that hold spilled values
};

}  // namespace nos::cpu::native
