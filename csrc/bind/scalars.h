// Owns the keyword arguments of apply_rule and apply_population, which are rows of program/arguments.def: how they are
// read, their errors, and what signatures and docstrings say of them.
#pragma once
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "../program/program.h"
#include "arguments.h"

namespace nos::bind {

enum class Taker { apply_rule, apply_population };

// The arguments that are not hyperparameters.
enum class Option : uint8_t {
#define NOS_PLACE(id, taker)
#define NOS_LR(id, doc)
#define NOS_OPTION(id, initial, each, doc) id,
#include "../program/arguments.def"
#undef NOS_PLACE
#undef NOS_LR
#undef NOS_OPTION
};

// One value for each slice of a population, or one for all.
template <class T>
class PerSlice {
 public:
  explicit PerSlice(T all) : all_(all) {}
  T operator[](size_t k) const { return each_.empty() ? all_ : each_[k]; }
  void set(size_t k, size_t slices, T value) {
    each_.resize(slices);
    each_[k] = value;
  }

 private:
  T all_;
  std::vector<T> each_;
};

// The factor of every gradient: the sign (-1 or 1) divided by the loss scale, whatever the caller's rounding mode.
double gradient_factor(double sign, double scale);

// The keyword arguments of one call. `programs` has one program for apply_rule, and one for each slice of a population.
class CallScalars {
 public:
  // Throws py::type_error or std::invalid_argument, which name the argument, its value and the remedy.
  CallScalars(Taker taker, std::span<const Program* const> programs, const Arguments& arguments);

  uint32_t step() const { return static_cast<uint32_t>(step_); }
  uint32_t tensor_index() const { return static_cast<uint32_t>(tensor_index_); }
  Rounding rounding() const { return rounding_; }
  double factor() const { return gradient_factor(sign_, scale_); }
  uint64_t seed(size_t k) const { return seed_[k]; }

  // Computes the scalars of slice k, as Program::eval_scalars does.
  void evaluate(size_t k, std::span<double> slots) const;

 private:
  void read_option(Option option, std::string_view name, PyObject* value);
  void read_hyper(std::string_view name, PyObject* value);
  [[noreturn]] void unknown(std::string_view name) const;
  template <class Read, class Put>
  void each_slice(std::string_view name, PyObject* value, const Read& read, const Put& put) const;
  std::span<double> hypers(size_t k);
  void check_complete() const;

  const Taker taker_;
  const std::span<const Program* const> programs_;
  uint64_t step_ = 1, tensor_index_ = 0;
  double sign_ = 1, scale_ = 1;  // of maximize and grad_scale
  Rounding rounding_ = Rounding::nearest;
  bool has_lr_ = false;
  PerSlice<double> total_steps_{NAN};
  PerSlice<uint64_t> seed_{0};
  std::array<double, bytecode::kMaxHypers> hypers_of_one_;
  std::vector<double> hypers_of_many_;  // of all slices, one after the other
  std::vector<size_t> first_hyper_;     // of each slice
};

double read_grad_scale(PyObject* value);  // None means 1

// Returns "apply_rule(bytecode_or_program, ..., **hyperparameters)", as inspect.signature reads it.
std::string signature(Taker taker);
// Returns the lines of the docstring's "Args" for lr and the arguments after it.
std::string option_docs(Taker taker);

}  // namespace nos::bind
