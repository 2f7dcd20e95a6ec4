// Owns Lowered: a program as the CPU block interpreter runs it. Lowering picks a place for every value, so that few
// temporaries stay in L1 and results go straight into the tensors.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "../../program/program.h"

namespace nos::cpu {

// Place of an operand or a result inside a block: place < num_slots is the caller's tensor of that slot (p, g, states),
// place >= num_slots a temporary. In Step::arg a scalar is kScalarPlace + scalar id.
inline constexpr uint16_t kScalarPlace = 0x8000;

struct Step {
  enum class Kind : uint8_t { map, random, copy, fill };
  Kind kind;
  Op op;            // map and random
  uint8_t scalars;  // bit k: operand k is a scalar
  uint16_t site;    // random
  uint16_t dst;
  uint16_t arg[3];
};

struct Lowered {
  std::vector<Step> steps;
  int num_slots;
  int num_temps;
  uint32_t reads;   // bit s: the old value of slot s is read
  uint32_t writes;  // bit s: slot s gets a new value; bit 1 (the gradient) is never set
  int cost;
};

Lowered lower(const Program& program);

// The lowering of a program, made at its first use and kept with it.
std::shared_ptr<const Lowered> lowered(const Program& program);

}  // namespace nos::cpu
