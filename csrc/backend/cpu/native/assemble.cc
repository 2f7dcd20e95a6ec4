#include "assemble.h"

#include <utility>

#include "allocate.h"
#include "x86/emit.h"

namespace nos::cpu::native {

Assembly assemble(const Graph& graph, const DType* dtypes, Rounding rounding, Target target) {
  StagedProgram program = cut(graph, dtypes, rounding, target);
  Assembly out{std::move(program.stages), program.num_scratch, {}, {}};
  x86::Assembler assembler;
  for (const ValueLoop& loop : program.loops) {
    out.entries.push_back(assembler.here());
    x86::emit(assembler, allocate(loop, x86::registers_of(target)), target, first_table(graph));
  }
  out.code = assembler.finish();
  return out;
}

}  // namespace nos::cpu::native
