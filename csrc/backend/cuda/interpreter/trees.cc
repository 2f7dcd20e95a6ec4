#include "trees.h"

#include <algorithm>

#include "../../../program/analysis.h"

namespace nos::cuda {
namespace {

constexpr int kDeepestTree = 100;  // bounds the recursion of lowering: a value of a deeper tree gets a place

}  // namespace

Trees::Trees(const Program& program) : inputs(program.first_instr_value()), reads(Uses(program).reads) {
  const auto first = static_cast<size_t>(inputs), count = static_cast<size_t>(program.num_values());
  // An output that keeps its slot reads nothing. In a pass, that is most outputs.
  for (size_t k = 0; k < program.outputs().size(); ++k)
    if (keeps_its_slot(program.outputs(), k)) --reads[static_cast<size_t>(program.outputs()[k].id())];

  root.assign(count, false);
  need.assign(count, 0);
  std::vector<int> depth(count, 0);
  for (size_t v = first; v < count; ++v) {
    const Instr& i = program.code()[v - first];
    uses_third |= reads[v] && i.arity() == 3 && i.op != Op::clip;
    for (int k = 0; k < i.arity(); ++k) {
      if (!is_tree(i.operand(k))) continue;
      const auto o = static_cast<size_t>(i.operand(k).id());
      need[v] = need[v] == need[o] && depth[v] ? need[v] + 1 : std::max(need[v], need[o]);
      depth[v] = std::max(depth[v], depth[o] + 1);
    }
    root[v] = reads[v] > 1 || depth[v] >= kDeepestTree;
  }
  for (Operand o : program.outputs())
    if (!o.is_scalar() && o.id() >= inputs) root[static_cast<size_t>(o.id())] = true;
  for (size_t v = first; v < count; ++v) root[v] = root[v] && reads[v];  // else dead
}

}  // namespace nos::cuda
