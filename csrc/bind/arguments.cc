#include "arguments.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace py = pybind11;

namespace nos::bind {

std::string shown(PyObject* value) {
  return py::str(py::module_::import("nos_ext._numbers").attr("shown")(py::handle(value)));
}

void forget_error() {
  if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception))
    throw py::error_already_set();
  PyErr_Clear();
}

std::string type_name(py::handle object) { return py::str(py::type::handle_of(object).attr("__name__")); }

std::string wrong_type(std::string_view name, PyObject* value, std::string_view wanted) {
  return std::string(name) + " is a " + type_name(value) + "; pass " + std::string(wanted);
}

py::object as_fast_sequence(std::string_view name, PyObject* value, std::string_view wanted) {
  if (PyList_Check(value) || PyTuple_Check(value)) return py::reinterpret_borrow<py::object>(value);
  auto out = py::reinterpret_steal<py::object>(PySequence_Fast(value, wrong_type(name, value, wanted).c_str()));
  if (!out) throw py::error_already_set();
  return out;
}

PyObject* interned(const char* text) {
  PyObject* out = PyUnicode_InternFromString(text);
  if (!out) throw py::error_already_set();
  return out;
}

double read_number(std::string_view name, PyObject* value) {
  if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
  if (!PyUnicode_Check(value) && !PyBytes_Check(value)) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Float(value));
    if (number) return PyFloat_AS_DOUBLE(number.ptr());
    const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
    forget_error();
    if (too_large)
      throw std::invalid_argument(std::string(name) + " is " + shown(value) +
                                  ", which is too large for a float; pass a smaller number");
  }
  throw py::type_error(std::string(name) + " is " + shown(value) + "; pass a number or a tensor of one element");
}

bool read_flag(std::string_view name, PyObject* value, const char* wanted) {
  if (value == Py_True || value == Py_False) return value == Py_True;
  const std::string_view type = Py_TYPE(value)->tp_name;
  if (PyLong_Check(value) || type == "numpy.bool" || type == "numpy.bool_") {
    const int set = PyObject_IsTrue(value);
    const int one = PyObject_RichCompareBool(value, Py_True, Py_EQ);
    if (set < 0 || one < 0) throw py::error_already_set();
    if (set == one) return set;
  }
  throw py::type_error(std::string(name) + " is " + shown(value) + "; pass " + wanted);
}

Rounding read_rounding(std::string_view name, PyObject* value) {
  if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, "states") == 0) return Rounding::states;
  return read_flag(name, value, "True or False, or 'states'") ? Rounding::all : Rounding::nearest;
}

uint64_t read_integer(std::string_view name, PyObject* value, uint64_t low, uint64_t high) {
  const auto bad = [&] {
    return std::invalid_argument(std::string(name) + " is " + shown(value) + "; pass an integer from " +
                                 std::to_string(low) + " to " + std::to_string(high));
  };
  py::object integer = py::reinterpret_steal<py::object>(PyNumber_Index(value));
  if (!integer) {  // 3.0 and a tensor that holds 3 are accepted, too
    forget_error();
    const double number = read_number(name, value);
    if (number != std::floor(number) || std::isinf(number)) throw bad();
    integer = py::reinterpret_steal<py::object>(PyLong_FromDouble(number));
    if (!integer) throw py::error_already_set();
  }
  const uint64_t out = PyLong_AsUnsignedLongLong(integer.ptr());
  if (PyErr_Occurred()) {
    forget_error();
    throw bad();
  }
  if (out < low || out > high) throw bad();
  return out;
}

std::string_view Arguments::name_of(Py_ssize_t k) const {
  Py_ssize_t n;
  const char* text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(names_, k), &n);
  if (!text) throw py::error_already_set();
  return {text, static_cast<size_t>(n)};
}

PyObject* Arguments::positional(Py_ssize_t i, std::string_view name) {
  PyObject* found = i < count_ ? args_[i] : nullptr;
  const Py_ssize_t n = names_ ? PyTuple_GET_SIZE(names_) : 0;
  for (Py_ssize_t k = 0; k < n; ++k) {
    if (is_taken(k) || name_of(k) != name) continue;
    if (found) throw py::type_error("argument '" + std::string(name) + "' is given twice");
    found = args_[count_ + k];
    taken_[num_taken_++] = k;
  }
  if (!found) throw py::type_error("argument '" + std::string(name) + "' is missing");
  return found;
}

void Arguments::at_most(Py_ssize_t n, std::string_view function) const {
  if (count_ > n)
    throw py::type_error(std::string(function) + " takes " + std::to_string(n) + " positional arguments but " +
                         std::to_string(count_) + " were given; pass the others by name");
}

}  // namespace nos::bind
