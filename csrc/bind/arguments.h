// Owns the reading of scalar arguments: numbers, integers and keyword names. Every error names the argument.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "../plan/step.h"

namespace nos::bind {

// Clears the Python error that is set, so that another can be reported in its place. If the error is not about the
// value at hand, because memory has run out or the user has interrupted, it is thrown instead.
void forget_error();

// Returns an interned string. The caller keeps it for good or releases it.
PyObject* interned(const char* text);

// Reads a double from a number or a one-element tensor. Text is refused. Throws py::type_error, which names the
// argument.
double read_number(std::string_view name, PyObject* value);

// Reads an integer, or a number that is one, from low to high. Throws py::type_error or std::invalid_argument.
uint64_t read_integer(std::string_view name, PyObject* value, uint64_t low, uint64_t high);

// Reads True or False, also as 0 or 1 or as NumPy's. Throws py::type_error, which names the argument and what is
// `wanted`, for text and the like.
bool read_flag(std::string_view name, PyObject* value, const char* wanted = "True or False");

// Reads True, False or "states". Throws as read_flag does.
Rounding read_rounding(std::string_view name, PyObject* value);

std::string type_name(pybind11::handle object);

// Says that an argument has the wrong type, and what is wanted: "a list of tensors".
std::string wrong_type(std::string_view name, PyObject* value, std::string_view wanted);

// Returns a list or tuple of what is in `value`, which may be anything iterable. Otherwise it throws a TypeError that
// says wrong_type().
pybind11::object as_fast_sequence(std::string_view name, PyObject* value, std::string_view wanted);

// Returns what was given, in the form that messages use: nos_ext._numbers.shown.
std::string shown(PyObject* value);

// The arguments of a METH_FASTCALL | METH_KEYWORDS call. Positional ones may be given by position or by name, the
// others by name.
class Arguments {
 public:
  Arguments(PyObject* const* args, Py_ssize_t count, PyObject* names) : args_(args), count_(count), names_(names) {}

  // Returns positional argument number i, which may also be given by name. Throws py::type_error when it is missing or
  // given twice.
  PyObject* positional(Py_ssize_t i, std::string_view name);
  // Throws py::type_error for more than n positional arguments.
  void at_most(Py_ssize_t n, std::string_view function) const;
  // Calls visit(name, value) for every keyword that positional() has not taken.
  template <class Visit>
  void keywords(const Visit& visit) const {
    const Py_ssize_t n = names_ ? PyTuple_GET_SIZE(names_) : 0;
    for (Py_ssize_t k = 0; k < n; ++k)
      if (!is_taken(k)) visit(name_of(k), args_[count_ + k]);
  }

 private:
  std::string_view name_of(Py_ssize_t k) const;

  PyObject* const* args_;
  Py_ssize_t count_;
  PyObject* names_;
  // How many keywords may stand for positional arguments: as many as there are of these.
  static constexpr size_t kMostTaken = 4;
  bool is_taken(Py_ssize_t k) const { return std::find(taken_, taken_ + num_taken_, k) != taken_ + num_taken_; }
  Py_ssize_t taken_[kMostTaken];
  size_t num_taken_ = 0;
};

}  // namespace nos::bind
