#include "analysis.h"

#include <algorithm>

namespace nos {

std::vector<int> inputs_that_move(std::span<const Operand> outputs, int num_inputs) {
  std::vector<int> out;
  for (size_t k = 0; k < outputs.size(); ++k) {
    const Operand o = outputs[k];
    if (o.is_scalar() || o.id() >= num_inputs || o.id() == bytecode::kG || keeps_its_slot(outputs, k)) continue;
    if (std::ranges::find(out, o.id()) == out.end()) out.push_back(o.id());
  }
  return out;
}

Uses::Uses(const Program& program)
    : reads(static_cast<size_t>(program.num_values())),
      last_read(reads.size(), kNever),
      scalar_is_read(static_cast<size_t>(program.num_uniforms())) {
  const auto read = [&](Operand o, int by) {
    const auto id = static_cast<size_t>(o.id());
    if (o.is_scalar()) {
      scalar_is_read[id] = true;
    } else {
      ++reads[id];
      last_read[id] = std::max(last_read[id], by);
    }
  };
  for (const Operand o : program.outputs()) read(o, kByOutput);
  for (int pc = static_cast<int>(program.code().size()); pc-- > 0;) {
    const Instr& i = program.code()[static_cast<size_t>(pc)];
    if (!is_live(program.first_instr_value() + pc) && !is_reduction(i.op)) continue;
    for (int k = 0; k < i.arity(); ++k) read(i.operand(k), pc);
  }
}

}  // namespace nos
