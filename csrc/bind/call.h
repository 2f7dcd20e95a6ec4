// Owns what apply_rule and apply_population share: how programs come out of Python objects, and how C++ exceptions get
// into Python.
#pragma once
#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>
#include <string_view>

#include "../program/program.h"

namespace nos::bind {

// Returns the program of a nos_ext.Program or of bytes; `keep` owns it. `name` is what messages call the argument.
const Program& read_program(std::string_view name, PyObject* source, pybind11::object& keep);

// The Python class of rules with matrix products between their stages, and what apply_rule calls for them. Null until
// nos_ext.engine sets them.
struct Staged {
  PyTypeObject* type = nullptr;
  PyObject* apply = nullptr;
};
Staged& staged();

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);
inline PyCFunction fast_function(FastFunction f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}
void add_function(pybind11::module_& m, PyMethodDef& definition);

// Calls f and returns None. C++ exceptions become Python's, as pybind11 does it for its own functions.
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
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, e.what());  // see translate_memory_error
  }
  return nullptr;
}

}  // namespace nos::bind
