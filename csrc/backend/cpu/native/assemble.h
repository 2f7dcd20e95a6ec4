// Owns the way from a graph to machine code: it is cut into stages, the loops get their registers, and each target's
// emitter writes them. Nothing here asks which machine it runs on, so that any target's code can be looked at.
#pragma once
#include <cstdint>
#include <vector>

#include "graph.h"
#include "stages.h"

namespace nos::cpu::native {

struct Assembly {
  std::vector<Stage> stages;
  int num_scratch = 0;
  std::vector<uint8_t> code;     // with its constants; it may lie at any address that is a multiple of 64
  std::vector<int32_t> entries;  // where in `code` each loop starts, by Stage::index
};

// dtypes: of the slots, none of them f64.
Assembly assemble(const Graph& graph, const DType* dtypes, Target target);

}  // namespace nos::cpu::native
