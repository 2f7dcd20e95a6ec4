// Owns the reading of scalar arguments: numbers, integers and keyword names, each with an error that names the
// argument.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace nos::bind {

// Forgets the Python error that is set, to report another in its place; throws it instead where it is not about the
// value at hand: memory has run out, or the user has interrupted.
void forget_error();

// An interned string, which the caller keeps for good or releases.
PyObject* interned(const char* text);

// A double from a number or a one-element tensor. Text is refused. py::type_error names the argument.
double read_number(std::string_view name, PyObject* value);

// An integer (or a number that is one) from low to high. py::type_error or std::invalid_argument.
uint64_t read_integer(std::string_view name, PyObject* value, uint64_t low, uint64_t high);

// True or False, also as 0 or 1 or NumPy's. py::type_error names the argument: text and the like is no answer.
bool read_flag(std::string_view name, PyObject* value);

// What was given, for messages: nos_ext._numbers.shown.
std::string shown(PyObject* value);

// The arguments of a METH_FASTCALL | METH_KEYWORDS call: positional by place or name, then keywords by name.
class Arguments {
 public:
  Arguments(PyObject* const* args, Py_ssize_t count, PyObject* names) : args_(args), count_(count), names_(names) {}

  // Positional argument number i, also under its name. Throws py::type_error when it is missing or given twice.
  PyObject* positional(Py_ssize_t i, std::string_view name);
  // Refuses more than n positional arguments.
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
  // Keywords that stood for positional arguments; as many can as there are of these.
  static constexpr size_t kMostTaken = 4;
  bool is_taken(Py_ssize_t k) const { return std::find(taken_, taken_ + num_taken_, k) != taken_ + num_taken_; }
  Py_ssize_t taken_[kMostTaken];
  size_t num_taken_ = 0;
};

}  // namespace nos::bind
