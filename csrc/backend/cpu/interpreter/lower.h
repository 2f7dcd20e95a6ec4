// Owns Lowered: a program as the CPU block interpreter runs it. Lowering chooses where each value lies, so that the few
// temporaries stay in the L1 cache and results go straight into the tensors.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "../../../program/program.h"
#include "../kernel_call.h"

namespace nos::cpu {

struct Lowered {
  std::vector<KernelCall> calls;
  int num_slots;
  int num_temps;
  uint32_t reads;   // bit s: the old value of slot s is read
  uint32_t writes;  // bit s: slot s gets a new value; bit 1 (the gradient) is never set
  int cost;
};

Lowered lower(const Program& program);

// The lowering of a program, made at its first use and kept with it.
std::shared_ptr<const Lowered> lowered(const Program& program);

// The ns that the interpreter takes for one element. `wide` says whether it computes in double.
double interpreter_cost(const Lowered& code, bool wide);

}  // namespace nos::cpu
