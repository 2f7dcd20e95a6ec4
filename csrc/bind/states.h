// Owns the `state` argument of apply_rule and apply_population, which is a dict of lists by name, or the lists in slot
// order.
#pragma once
#include <span>

#include "../program/program.h"
#include "scalars.h"
#include "tensors.h"

namespace nos::bind {

// Adds the lists to those of the call. `programs` has one program for apply_rule, and one for each slice of a
// population, whose slices have the states of their own programs. Throws py::type_error or std::invalid_argument, which
// say what was given.
void add_states(TensorLists& tensors, Taker taker, std::span<const Program* const> programs, PyObject* state);

}  // namespace nos::bind
