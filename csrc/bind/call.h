// Owns what apply_rule and apply_population share: programs from Python objects, the device check, running with the GIL
// released, autograd's version counters, and the way of C++ exceptions into Python.
#pragma once
#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>

#include "../backend/cpu/engine.h"
#include "../program/program.h"
#include "tensors.h"

namespace nos::bind {

// The program of a nos_ext.Program or of bytes; `keep` owns it. `name` is the argument's name in messages.
const Program& read_program(const std::string& name, PyObject* source, pybind11::object& keep);

// The arguments that apply_rule and apply_population take alike.
struct StepScalars {
  uint64_t step = 1, tensor_index = 0;
  double sign = 1, scale = 1;  // of maximize and grad_scale

  bool read(std::string_view name, PyObject* value);  // false for another name
  double factor() const { return sign / scale; }      // multiplies every gradient
};

// The plan of the last call, used again while every address, shape and stride is the same.
struct LastPlan {
  std::vector<int64_t> signature;
  std::vector<PyObject*> objects;  // for identity only: possibly dangling, never dereferenced
  cpu::Tuning tuning;
  uint32_t tensor_index;
  std::shared_ptr<const cpu::Prepared> prepared;

  bool serves(const std::vector<int64_t>& other, uint32_t index) const {
    return signature == other && tensor_index == index && tuning == cpu::tuning();
  }
};

void run_job(const cpu::Prepared& prepared, const cpu::StepArgs& args);

// Tells autograd that torch parameters were written, as torch's own in-place operations do: a backward pass that needs
// the old values then fails instead of using the new ones. States never take part in autograd.
void mark_modified(const TensorLists& tensors);

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);
inline PyCFunction fast_function(FastFunction f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}
void add_function(pybind11::module_& m, PyMethodDef& definition);

// Calls f and returns None; turns C++ exceptions into Python's, as pybind11 does for its own functions.
template <class F>
PyObject* guarded(const F& f) {
  try {
    f();
    Py_RETURN_NONE;
  } catch (pybind11::error_already_set& e) {
    e.restore();
  } catch (const pybind11::builtin_exception& e) {
    e.set_error();
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

}  // namespace nos::bind
