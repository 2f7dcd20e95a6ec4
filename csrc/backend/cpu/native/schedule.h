// Owns Schedule: when each value of a graph is computed, and where later stages find it.
//
// Time in the order of execution: the fused loop of level k is stage 2 k, its kernels are stage 2 k + 1 (stages.h).
// Values are numbered as in the graph, then one for each input that moves to another slot and each scalar that fills
// one.
#pragma once
#include <utility>
#include <vector>

#include "../../../plan/plan.h"
#include "graph.h"

namespace nos::cpu::native {

struct Value {
  int level = 0;
  int defined = -1;   // stage; -1 for inputs
  int last_use = -1;  // stage
  bool by_kernel = false;
  bool fused = false;    // a comparison without a result of its own: its `where` ops do it
  bool in_slot = false;  // from its definition on it lies in the slot `place`
  int place = -1;        // where later stages find it: slot, or num_slots + scratch array
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
  bool converts = false;  // the one loop reads and writes half precision itself
  std::vector<Value> values;
  std::vector<std::pair<int, int>> copies;     // input, value
  std::vector<std::pair<Operand, int>> fills;  // scalar, value
  std::vector<Store> stores;
  std::vector<int> narrow_from;  // per output: the value that is narrowed into its slot at the end, or -1
};

// loop_converts: whether fused loops can read and write half precision. Kernels cannot: where a program has any, a slot
// in half precision is widened into a scratch array first, and its new value is narrowed at the end.
Schedule make_schedule(const Graph& graph, const DType* dtypes, bool loop_converts);

inline bool is_kernel(const Node& n) { return n.table < 0 && native_op(n.op).kind == NativeOp::kernel; }
inline bool is_comparison(const Node& n) { return n.table < 0 && native_op(n.op).kind == NativeOp::compare; }

}  // namespace nos::cpu::native
