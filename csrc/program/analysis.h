// Owns what every lowering asks of a program before it emits code: which values matter, how often and until when they
// are read, and where outputs go. Values are numbered as in the program: inputs (the tensors of a call) first, then one
// per instruction. The functions on outputs also serve a back-end that renumbers the instructions.
#pragma once
#include <limits>
#include <span>
#include <vector>

#include "program.h"

namespace nos {

// The slot of output k: p for the first one, then the states in order.
inline int slot_of_output(size_t k) { return k == 0 ? bytecode::kP : bytecode::kFirstState + static_cast<int>(k) - 1; }

// Whether output k is what its slot holds already, so that nothing has to be written.
inline bool keeps_its_slot(std::span<const Operand> outputs, size_t k) {
  return !outputs[k].is_scalar() && outputs[k].id() == slot_of_output(k);
}

// The inputs that become the new value of another slot, each once. Their own slot may be overwritten before that one is
// written, so they are saved first. The gradient is never overwritten and is left out.
std::vector<int> inputs_that_move(std::span<const Operand> outputs, int num_inputs);

// Who reads the values of a program. Instructions whose results nobody reads are dead and do not count as readers.
struct Uses {
  static constexpr int kNever = -1, kByOutput = std::numeric_limits<int>::max();

  explicit Uses(const Program& program);

  bool is_live(int value) const { return reads[static_cast<size_t>(value)] > 0; }

  std::vector<int> reads;  // of each value: by instructions and by outputs
  std::vector<int>
      last_read;  // the last instruction that reads it; kByOutput where an output does, kNever where nobody
  std::vector<bool> scalar_is_read;
};

}  // namespace nos
