// Owns Plan: the checked work list of one call. All checks on tensors are in make_plan and nowhere else, so whoever
// holds a Plan may write through its pointers. It is pure host code that all back-ends share.
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

// Thrown for tensors that a call cannot work on. The message names the list and the index.
class TensorError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// One parameter with its gradient and states. Each is dense memory of slices * numel elements, all in the same order.
// Slice k runs the call's program `program + k` with the scalar row `row + k`. Outside a population there is one slice.
// Slots that its program does not have are null and f32.
struct PlannedTensor {
  std::array<void*, kMaxSlots> data;
  std::array<DType, kMaxSlots> dtype;
  std::array<float*, bytecode::kMaxStates> scales;  // of each state that is quantized; null for the others
  int64_t numel;                                    // of one slice
  uint32_t slices;
  uint32_t program;
  uint32_t row;
  uint32_t index;  // tensor number in the key of random draws
};

// Whether a tensor is computed in double.
inline bool is_wide(const PlannedTensor& t) { return t.dtype[bytecode::kP] == DType::f64; }

struct Plan {
  std::vector<PlannedTensor> tensors;  // without empty tensors and parameters that have no gradient
  int num_slots = 2;                   // 2 + states

  struct Span {
    uintptr_t begin, end;  // bytes
  };
  std::vector<Span> written;  // the memory of parameters and states, sorted; no two overlap
};

// What a tensor's program keeps: how many states, and a bit for each slot where the state is one number per tensor.
struct TensorStates {
  int count;
  uint32_t number_slots;
};

// `lists` holds params, grads, then one list for each state. `first_index` is the number of params[0] in the key of
// random draws. `population` is the number of slices along the leading dimension of every tensor, or 0 outside a
// population. The last `num_scales` lists hold the scales of the states, in their order, where some are quantized;
// those of other states are not present. In slots whose bit is set in `number_slots`, a tensor has one number for each
// slice, and its data pointer is that of the first one. Where programs differ from tensor to tensor, `states_of` has
// one entry for each, which says instead which lists are looked at. Throws TensorError, and nothing has been written by
// then.
Plan make_plan(std::span<const TensorList> lists, uint32_t first_index, uint32_t population = 0,
               uint32_t number_slots = 0, std::span<const TensorStates> states_of = {}, size_t num_scales = 0);

// Points a plan at new gradients that differ from the old ones in their addresses only; nothing else of `grads` is
// read. Returns false and leaves the plan as it was if one of them shares memory with a parameter or state. make_plan
// then says which.
bool move_gradients(Plan& plan, const TensorList& grads, uint32_t first_index);

}  // namespace nos
