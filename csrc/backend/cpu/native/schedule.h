// Owns Schedule, which says when each value of a graph is computed and where later phases find it.
//
// A block goes through phases: in phase 2 k runs the fused loop of level k, in phase 2 k + 1 the kernels of that level
// (stages.h). Values are numbered as in the graph, then come one for each input that moves to another slot and one for
// each scalar that fills a slot.
#pragma once
#include <utility>
#include <vector>

#include "graph.h"

namespace nos::cpu::native {

struct ScheduledValue {
  int level = 0;
  int defined = -1;   // phase; -1 for inputs
  int last_use = -1;  // phase
  bool by_kernel = false;
  bool absorbed = false;  // a comparison that is made by the `where` ops that read it, and has no result of its own
  bool in_slot = false;   // from its definition on it lies in the slot `place`
  int place = -1;         // where later phases find it: slot, or num_slots + scratch array
};

// The new value of a slot, written in the loop of `level`.
struct Store {
  int value;  // or -1: the scalar
  Operand scalar;
  int slot;
  int level;
};

struct Schedule {
  int last_level = 0, num_scratch = 0;
  std::vector<bool> converted;  // per slot: in half precision, and widened and narrowed by kernels of their own
  std::vector<ScheduledValue> values;
  std::vector<std::pair<int, int>> copies;     // input, value
  std::vector<std::pair<Operand, int>> fills;  // scalar, value
  std::vector<Store> stores;
  std::vector<int> narrow_from;  // per output: the value that is narrowed into its slot at the end, or -1
};

// loop_converts: whether fused loops can read and write half precision. Kernels cannot: where a program has any, a slot
// in half precision is widened into a scratch array first, and its new value is narrowed at the end.
Schedule make_schedule(const Graph& graph, const DType* dtypes, bool loop_converts);

}  // namespace nos::cpu::native
