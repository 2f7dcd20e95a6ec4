// Owns what every lowering asks of a program before it emits code: which values are needed, how often and until when
// they are read, and where outputs go. Values are numbered as in the program: first the inputs, which are the tensors
// of a call, then one for each instruction. The functions on outputs also serve back-ends that renumber the
// instructions.
#pragma once
#include <limits>
#include <span>
#include <vector>

#include "program.h"

namespace nos {

// The slot of output k: p for the first one, then the states in order.
inline int slot_of_output(size_t k) { return k == 0 ? bytecode::kP : bytecode::kFirstState + static_cast<int>(k) - 1; }

// Whether output k is the value that its slot already holds, so that nothing has to be written.
inline bool keeps_its_slot(std::span<const Operand> outputs, size_t k) {
  return !outputs[k].is_scalar() && outputs[k].id() == slot_of_output(k);
}

// The inputs that become the new value of another slot, each listed once. The own slot of such an input may be
// overwritten before the other one is written, so these inputs are saved first. The gradient is never overwritten and
// is left out.
std::vector<int> inputs_that_move(std::span<const Operand> outputs, int num_inputs);

// Says who reads the values of a program without reductions, or of a pass (passes.h). Instructions whose results nobody
// reads are dead and do not count as readers, except for the reductions of a pass, which define no value.
struct Uses {
  static constexpr int kNever = -1, kByOutput = std::numeric_limits<int>::max();

  explicit Uses(const Program& program);

  bool is_live(int value) const { return reads[static_cast<size_t>(value)] > 0; }

  std::vector<int> reads;      // how often each value is read, by instructions and by outputs
  std::vector<int> last_read;  // the last instruction that reads each value; kByOutput where an output does, kNever
                               // where nothing does
  std::vector<bool> scalar_is_read;
};

}  // namespace nos
