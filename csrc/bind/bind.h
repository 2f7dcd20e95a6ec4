// The binders of the module; each adds one topic. Python and torch appear in this folder only. It knows no back-end by
// name but in two places, for functions that no other back-end could have: py_jit.cc binds the compiled tier of CUDA,
// and set_tuning in py_apply.cc the CPU's cutting of the work.
#pragma once
#include <pybind11/pybind11.h>

namespace nos::bind {

void bind_program(pybind11::module_& m);     // op_table, Program
void bind_apply(pybind11::module_& m);       // apply_rule
void bind_population(pybind11::module_& m);  // apply_population
void bind_stepper(pybind11::module_& m);     // Stepper
void bind_captured(pybind11::module_& m);    // CapturedStep
void bind_info(pybind11::module_& m);        // build_info, philox
void bind_jit(pybind11::module_& m);         // set_jit and the compiled tier's parts
void bind_child(pybind11::module_& m);       // Child, layer_table

}  // namespace nos::bind
