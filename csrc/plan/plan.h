// Owns Plan: the checked work list of one call. make_plan is the only home of the checks on tensors; whoever holds a
// Plan may write through its pointers. Pure host code, shared by all back-ends.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "../program/bytecode.h"
#include "tensor_ref.h"

namespace nos {

inline constexpr int kMaxSlots = 2 + bytecode::kMaxStates;  // p, g, states: numbered as the program's value ids

// Tensors that a call cannot work on. The message names the list and the index.
class TensorError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// One parameter with its gradient and states: dense memory of slices * numel elements each, in the same order. Slice k
// runs the call's program `program + k` with the scalar row `row + k`; outside a population there is one slice.
struct PlannedTensor {
  std::array<void*, kMaxSlots> data;
  std::array<DType, kMaxSlots> dtype;
  int64_t numel;  // of one slice
  uint32_t slices;
  uint32_t program;
  uint32_t row;
  uint32_t index;  // tensor number in the key of random draws
};

struct Plan {
  std::vector<PlannedTensor> tensors;  // without the empty ones and those that have no gradient
  int num_slots = 2;                   // 2 + states

  struct Span {
    uintptr_t begin, end;  // bytes
  };
  std::vector<Span> written;  // memory of parameters and states, sorted; disjoint
};

// lists: params, grads, then one per state. Throws TensorError; nothing has been written by then.
// first_index: tensor number of params[0] in the key of random draws.
// population: number of slices along the leading dimension of every tensor; 0 outside a population.
Plan make_plan(std::span<const TensorList> lists, uint32_t first_index, uint32_t population = 0);

// Points a plan at gradients that differ from those it was made of in their addresses only, all that is read of
// `grads`. False, with the plan as it was, if one of them shares memory with a parameter or state: make_plan then says
// which.
bool move_gradients(Plan& plan, const TensorList& grads, uint32_t first_index);

}  // namespace nos
