// Owns Schedule, which says when each value of a graph is computed and where later phases find it.
//
// A block goes through phases: phase 2 k is the fused loop of level k, and phase 2 k + 1 runs the kernels of that level
// (stages.h says what a level is). Values are numbered as in the graph. After them comes one value for each input that
// moves to another slot, and one for each scalar that fills a slot.
#pragma once
#include <utility>
#include <vector>

#include "../../../plan/step.h"
#include "graph.h"

namespace nos::cpu::native {

struct ScheduledValue {
  int level = 0;
  int defined = -1;   // phase; -1 for inputs
  int last_use = -1;  // phase
  bool by_kernel = false;
  bool absorbed = false;  // a comparison without a result of its own: the `where` ops that read it make it
  bool in_slot = false;   // from its definition on, the value lies in the slot `place`
  int place = -1;         // where later phases find it: a slot, or num_slots + the number of a scratch array
};

// Writes the new value of a slot in the loop of `level`.
struct Store {
  int value;  // -1 where the new value is the scalar
  Operand scalar;
  int slot;
  int level;
};

struct Schedule {
  int last_level = 0, num_scratch = 0;
  std::vector<bool> converted;  // per slot: it is not stored in fp32, and kernels of their own widen and narrow it
  std::vector<bool> decoded;    // per slot: loops decode it, instead of a kernel, and its place has the scales
  std::vector<ScheduledValue> values;
  std::vector<std::pair<int, int>> copies;     // (input, its copy) for each input that moves to another slot
  std::vector<std::pair<Operand, int>> fills;  // (scalar, value that holds it) for each scalar that fills a slot
  std::vector<Store> stores;
  std::vector<int> narrow_from;  // of each output: the value that is narrowed into its slot at the end, or -1
};

// `loop_converts` says whether fused loops can read half precision and codes, and write half precision rounded to the
// nearest. Kernels cannot. So where a program has any kernel, a slot that is not stored in fp32 is widened into a
// scratch array first, and its new value is narrowed at the end. What is rounded stochastically or quantized is
// narrowed at the end everywhere.
Schedule make_schedule(const Graph& graph, const DType* dtypes, Rounding rounding, bool loop_converts);

}  // namespace nos::cpu::native
