#include "scalars.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "../ops/float_environment.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

#define NOS_PLACE(id, taker)
#define NOS_LR(id, doc)
std::optional<Option> option_of(std::string_view name) {
#define NOS_OPTION(id, initial, each, doc) \
  if (name == #id) return Option::id;
#include "../program/arguments.def"
#undef NOS_OPTION
  return std::nullopt;
}

std::string options() {
  std::string out;
#define NOS_OPTION(id, initial, each, doc) out += out.empty() ? #id : ", " #id;
#include "../program/arguments.def"
#undef NOS_PLACE
#undef NOS_LR
#undef NOS_OPTION
  return out;
}

const char* name_of(Taker taker) { return taker == Taker::apply_rule ? "apply_rule" : "apply_population"; }

double read_total(std::string_view name, PyObject* value) {
  const double steps = read_number(name, value);
  if (!(steps > 0))
    throw std::invalid_argument(std::string(name) + " is " + shown(value) + "; pass a positive number of steps");
  return steps;
}

uint64_t read_seed(std::string_view name, PyObject* value) { return read_integer(name, value, 0, UINT64_MAX); }

bool is_sequence(PyObject* value) {
  if (PyFloat_CheckExact(value) || PyLong_CheckExact(value)) return false;
  return PyList_Check(value) || PyTuple_Check(value) ||
         (py::hasattr(value, "__len__") && py::hasattr(value, "ndim") &&
          py::handle(value).attr("ndim").cast<int>() == 1);
}

NOS_NOINLINE double divided(double a, double b) { return a / b; }

bool has(const Program& program, std::string_view name) {
  return std::ranges::any_of(program.hypers(), [&](const Hyper& h) { return name == h.name; });
}

}  // namespace

double gradient_factor(double sign, double scale) {
  const FloatEnvironment environment;
  return divided(sign, scale);
}

double read_grad_scale(PyObject* value) {
  if (value == Py_None) return 1;
  const double scale = read_number("grad_scale", value);
  if (scale == 0 || std::isnan(scale))
    throw std::invalid_argument("grad_scale is " + shown(value) + "; pass a number that is not 0");
  return scale;
}

CallScalars::CallScalars(Taker taker, std::span<const Program* const> programs, const Arguments& arguments)
    : taker_(taker), programs_(programs) {
  if (programs.size() > 1) {
    size_t total = 0;
    for (const Program* p : programs) {
      first_hyper_.push_back(total);
      total += p->hypers().size();
    }
    hypers_of_many_.resize(total);
  }
  for (size_t k = 0; k < programs.size(); ++k) {
    double* out = hypers(k).data();
    for (const Hyper& h : programs[k]->hypers()) *out++ = h.value;
  }
  arguments.keywords([&](std::string_view name, PyObject* value) {
    if (const std::optional<Option> option = option_of(name))
      read_option(*option, name, value);
    else
      read_hyper(name, value);
  });
  check_complete();
}

std::span<double> CallScalars::hypers(size_t k) {
  double* first = programs_.size() > 1 ? hypers_of_many_.data() + first_hyper_[k] : hypers_of_one_.data();
  return {first, programs_[k]->hypers().size()};
}

// Calls put(k, read(value)) for every slice k. In a population the value may be a sequence with one item for each
// slice.
template <class Read, class Put>
void CallScalars::each_slice(std::string_view name, PyObject* value, const Read& read, const Put& put) const {
  const size_t n = programs_.size();
  if (taker_ == Taker::apply_rule || !is_sequence(value)) {
    const auto one = read(name, value);
    for (size_t k = 0; k < n; ++k) put(k, one);
    return;
  }
  // A copy, as read() may run Python code.
  const auto items = py::reinterpret_steal<py::object>(PySequence_Tuple(value));
  if (!items) throw py::error_already_set();
  const auto count = static_cast<size_t>(PyTuple_GET_SIZE(items.ptr()));
  if (count != n)
    throw std::invalid_argument(std::string(name) + " is " + shown(value) + ", which has " + std::to_string(count) +
                                (count == 1 ? " value" : " values") + " but there are " + std::to_string(n) +
                                " programs; pass one number or one per program");
  for (size_t k = 0; k < n; ++k)
    put(k, read(std::string(name) + "[" + std::to_string(k) + "]",
                PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(k))));
}

void CallScalars::read_option(Option option, std::string_view name, PyObject* value) {
  const size_t n = programs_.size();
  switch (option) {
    case Option::step:
      step_ = read_integer(name, value, 1, UINT32_MAX);
      return;
    case Option::total_steps:
      if (value != Py_None) each_slice(name, value, read_total, [&](size_t k, double x) { total_steps_.set(k, n, x); });
      return;
    case Option::seed:
      each_slice(name, value, read_seed, [&](size_t k, uint64_t x) { seed_.set(k, n, x); });
      return;
    case Option::maximize:
      sign_ = read_flag(name, value) ? -1 : 1;
      return;
    case Option::grad_scale:
      scale_ = read_grad_scale(value);
      return;
    case Option::stochastic_rounding:
      rounding_ = read_rounding(name, value);
      return;
    case Option::tensor_index:
      tensor_index_ = read_integer(name, value, 0, uint64_t{1} << 31);
      return;
  }
}

void CallScalars::read_hyper(std::string_view name, PyObject* value) {
  if (std::ranges::none_of(programs_, [&](const Program* p) { return has(*p, name); })) unknown(name);
  has_lr_ |= name == programs_[0]->hypers()[0].name;
  each_slice(name, value, read_number, [&](size_t k, double x) {
    const auto& known = programs_[k]->hypers();
    for (size_t i = 0; i < known.size(); ++i)
      if (name == known[i].name) hypers(k)[i] = x;
  });
}

void CallScalars::unknown(std::string_view name) const {
  std::vector<std::string_view> known;
  std::string list;
  for (const Program* p : programs_)
    for (const Hyper& h : p->hypers())
      if (std::ranges::find(known, h.name) == known.end()) {
        known.push_back(h.name);
        list += (list.empty() ? "" : ", ") + h.name;
      }
  const bool one = taker_ == Taker::apply_rule;
  throw py::type_error(
      (one ? "rule '" + programs_[0]->name() + "' has no" : std::string("none of the programs has a")) +
      " hyperparameter '" + std::string(name) + "'; " + (one ? "it has " : "they have ") + list + ", and " +
      name_of(taker_) + " itself takes " + options());
}

void CallScalars::check_complete() const {
  if (!has_lr_) throw py::type_error("argument 'lr' is missing; pass the learning rate as lr=");
  for (size_t k = 0; k < programs_.size(); ++k)
    if (programs_[k]->uses_total_steps() && std::isnan(total_steps_[k]))
      throw std::invalid_argument("total_steps is None; " +
                                  (taker_ == Taker::apply_rule ? "rule '" + programs_[k]->name() + "'"
                                                               : "programs[" + std::to_string(k) + "]") +
                                  " reads T: pass the length of the training in steps");
}

void CallScalars::evaluate(size_t k, std::span<double> slots) const {
  const std::span<double> given = const_cast<CallScalars*>(this)->hypers(k);
  programs_[k]->eval_scalars(static_cast<double>(step_), total_steps_[k], given, slots);
}

std::string signature(Taker taker) {
  std::string out = std::string(name_of(taker)) + "(";
  const auto place = [&](std::string_view id, std::string_view who) {
    if (who == "both" || who == name_of(taker)) out += std::string(id) + ", ";
  };
#define NOS_PLACE(id, taker) place(#id, #taker);
#define NOS_LR(id, doc) out += "*, " #id ", ";
#define NOS_OPTION(id, initial, each, doc) out += #id "=" #initial ", ";
#include "../program/arguments.def"
#undef NOS_PLACE
#undef NOS_LR
#undef NOS_OPTION
  return out + "**hyperparameters)\n--\n\n";
}

std::string option_docs(Taker taker) {
  const char* each_slice = taker == Taker::apply_rule ? "" : " One for all slices, or K of them.";
  std::string out;
#define NOS_PLACE(id, taker)
#define NOS_LR(id, doc) out += std::string("    " #id ": " doc) + each_slice + "\n";
#define NOS_OPTION(id, initial, each, doc) out += std::string("    " #id ": " doc) + (each ? each_slice : "") + "\n";
#include "../program/arguments.def"
  return out;
}

}  // namespace nos::bind
