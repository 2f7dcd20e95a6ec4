// Owns the way from a graph to machine code. The graph is cut into stages, their loops get registers, and the target's
// emitter writes the instructions. Nothing here asks which machine it runs on, so the code of either target can be made
// and inspected anywhere.
#pragma once
#include <cstdint>
#include <vector>

#include "graph.h"
#include "stages.h"

namespace nos::cpu::native {

struct Assembly {
  std::vector<Stage> stages;
  int num_scratch = 0;
  std::vector<uint8_t> code;     // with its constants; may be put at any address that is a multiple of 64
  std::vector<int32_t> entries;  // offset in `code` of each loop, by Stage::index
};

// `dtypes` has the dtype of each slot; none of them is f64.
Assembly assemble(const Graph& graph, const DType* dtypes, Rounding rounding, Target target);

}  // namespace nos::cpu::native
