// Owns StagedProgram: a graph cut into fused loops and the block kernels between them.
//
// The level of a value is the largest number of kernel ops on a path from the inputs to it. The stages go level by
// level: one fused loop computes the cheap ops of level k, then the kernels of level k run over the block. A value that
// a later stage needs goes through a scratch array of one block, or through its tensor when it is that slot's new
// value. A new value is stored at the level of the last read of the old one.
#pragma once
#include <cstdint>
#include <vector>

#include "../../../plan/plan.h"
#include "../../../plan/step.h"
#include "graph.h"
#include "loop.h"

namespace nos::cpu::native {

struct Stage {
  enum class Kind : uint8_t {
    loop,    // index: which loop
    kernel,  // call: its places are slots, then num_slots + scratch array
    widen,   // converts slot `index`, which is not stored in fp32, into `place`
    spread,  // makes the scales of slot `index` ready for loops that decode it, in `place`
    scales,  // writes the scales of slot `index` for the numbers of `place`, which are narrowed later
    narrow,  // converts `place` back into slot `index`, rounded to the nearest
    narrow_stochastically,
  } kind;
  uint16_t index = 0, place = 0;
  KernelCall call{};
};

struct StagedProgram {
  std::vector<Stage> stages;
  std::vector<ValueLoop> loops;
  int num_scratch = 0;
};

// `dtypes` has the dtype of each slot; none of them is f64.
StagedProgram cut(const Graph& graph, const DType* dtypes, Rounding rounding, Target target);

}  // namespace nos::cpu::native
