// apply_rule as a METH_FASTCALL function: in the steady state nothing is allocated per tensor and no Python code runs.
#include <pybind11/stl.h>

#include <array>
#include <cmath>

#include "../backend/cpu/engine.h"
#include "../plan/plan.h"
#include "../program/program.h"
#include "arguments.h"
#include "bind.h"
#include "call.h"
#include "devices.h"
#include "tensors.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// What a program keeps from call to call.
struct Calls {
  explicit Calls(const Program& program) {
    for (const std::string& name : program.states()) {
      names.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(name.c_str())));
      labels.push_back("state['" + name + "']");
    }
  }
  LastPlan last;
  std::vector<py::object> names;    // of the states, as keys of dicts
  std::vector<std::string> labels;  // of their lists, for messages
};

Calls& calls_of(const Program& program) {  // guarded by the GIL
  std::shared_ptr<const void>& slot = program.attached(Attachment::calls);
  if (!slot) slot = std::make_shared<const Calls>(program);
  return *const_cast<Calls*>(static_cast<const Calls*>(slot.get()));
}

std::shared_ptr<const cpu::Prepared> plan_of(const Program& program, const TensorLists& tensors,
                                             uint32_t tensor_index) {
  const auto fits = [](const cpu::Prepared&) { return true; };
  return calls_of(program).last.get(tensors, tensor_index, {}, fits, [&] {
    const Program* programs[] = {&program};
    Plan plan = make_plan(tensors.lists(), tensor_index);
    return cpu::prepare(std::move(plan), programs);
  });
}

// On whichever device the tensors are.
void run_step(const Program& program, TensorLists& tensors, uint32_t tensor_index, const cpu::StepArgs& args) {
  const Program* programs[] = {&program};
  if (on_cuda(tensors))
    ready_on_cuda(programs, tensors, tensor_index, {}, 0)(args);
  else
    run_job(*plan_of(program, tensors, tensor_index), args, tensors);
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& n : names) out += (out.empty() ? "'" : ", '") + n + "'";
  return "[" + out + "]";
}

[[noreturn]] void bad_states(const Program& program, const std::string& what) {
  throw std::invalid_argument("state has " + what + "; rule '" + program.name() + "' has the states " +
                              joined(program.states()) + " (nos_ext.init_state makes them)");
}

void add_states(TensorLists& tensors, const Program& program, PyObject* state) {
  const Calls& calls = calls_of(program);
  py::object keep;
  if (!PyDict_Check(state) && !PyList_Check(state) && !PyTuple_Check(state) && py::hasattr(state, "keys")) {
    keep = py::dict(py::reinterpret_borrow<py::object>(state));
    state = keep.ptr();
  }
  if (PyDict_Check(state)) {
    std::array<PyObject*, bytecode::kMaxStates> lists;
    bool fits = static_cast<size_t>(PyDict_GET_SIZE(state)) == calls.names.size();
    for (size_t s = 0; s < calls.names.size(); ++s) {
      lists[s] = PyDict_GetItemWithError(state, calls.names[s].ptr());
      if (PyErr_Occurred()) throw py::error_already_set();
      fits = fits && lists[s];
    }
    if (!fits) bad_states(program, "the keys " + repr(py::list(py::reinterpret_borrow<py::object>(state)).ptr()));
    for (size_t s = 0; s < calls.names.size(); ++s) tensors.add(calls.labels[s], lists[s], Access::write);
    return;
  }
  if (!PySequence_Check(state) || PyUnicode_Check(state) || PyBytes_Check(state))
    throw py::type_error("state is a " + std::string(py::str(py::type::handle_of(state).attr("__name__"))) +
                         "; pass {name: [tensors]} or the lists in slot order");
  const auto n = static_cast<size_t>(PySequence_Size(state));
  if (n != calls.names.size()) bad_states(program, std::to_string(n) + " lists");
  for (size_t s = 0; s < n; ++s) {
    const auto list = py::reinterpret_steal<py::object>(PySequence_GetItem(state, static_cast<Py_ssize_t>(s)));
    if (!list) throw py::error_already_set();
    tensors.add(calls.labels[s], list, Access::write);
  }
}

struct Scalars {
  std::array<double, bytecode::kMaxHypers> hypers;
  double total_steps = NAN;
  uint64_t seed = 0;
  StepScalars common;
};

void read_scalars(const Program& program, const Arguments& arguments, Scalars& out) {
  const auto& hypers = program.hypers();
  for (size_t i = 0; i < hypers.size(); ++i) out.hypers[i] = hypers[i].has_default ? hypers[i].value : NAN;
  bool has_lr = false;
  arguments.keywords([&](std::string_view name, PyObject* value) {
    for (size_t i = 0; i < hypers.size(); ++i) {
      if (name != hypers[i].name) continue;
      out.hypers[i] = read_number(name, value);
      has_lr |= i == 0;
      return;
    }
    if (out.common.read(name, value)) return;
    if (name == "total_steps") {
      if (value == Py_None) return;
      out.total_steps = read_number(name, value);
      if (!(out.total_steps > 0))
        throw std::invalid_argument("total_steps is " + repr(value) + "; pass a positive number of steps");
    } else if (name == "seed") {
      out.seed = read_integer(name, value, 0, UINT64_MAX);
    } else {
      std::string known;
      for (const Hyper& h : hypers) known += (known.empty() ? "" : ", ") + h.name;
      throw py::type_error("rule '" + program.name() + "' has no hyperparameter '" + std::string(name) + "'; it has " +
                           known);
    }
  });
  if (!has_lr) throw py::type_error("argument 'lr' is missing; pass the learning rate as lr=");
  if (program.uses_total_steps() && std::isnan(out.total_steps))
    throw std::invalid_argument("total_steps is None; rule '" + program.name() +
                                "' reads T: pass the length of the training in steps");
}

void apply_rule(Arguments arguments) {
  arguments.at_most(4, "apply_rule");
  py::object keep;
  const Program& program = read_program("bytecode_or_program", arguments.positional(0, "bytecode_or_program"), keep);
  PyObject* params = arguments.positional(1, "params");
  PyObject* grads = arguments.positional(2, "grads");
  PyObject* state = arguments.positional(3, "state");
  Scalars scalars;
  read_scalars(program, arguments, scalars);

  const CallTensors tensors;
  tensors->add("params", params, Access::write);
  tensors->add("grads", grads, Access::read_or_none);
  add_states(*tensors, program, state);

  std::vector<double>& slots = tensors->scalars;
  slots.resize(static_cast<size_t>(program.num_scalars()));
  program.eval_scalars(static_cast<double>(scalars.common.step), scalars.total_steps,
                       {scalars.hypers.data(), program.hypers().size()}, slots);
  const double* rows[] = {slots.data()};
  const size_t sizes[] = {slots.size()};
  const cpu::StepArgs args{rows,
                           sizes,
                           1,
                           &scalars.seed,
                           static_cast<uint32_t>(scalars.common.step),
                           scalars.common.factor(),
                           scalars.common.stochastic_rounding};
  run_step(program, *tensors, static_cast<uint32_t>(scalars.common.tensor_index), args);
  tensors->mark_modified();
}

PyObject* call_apply_rule(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&] { apply_rule({args, count, names}); });
}

constexpr const char* kApplyDoc =
    R"(apply_rule(bytecode_or_program, params, grads, state, *, lr, step=1, total_steps=None, seed=0, maximize=False, grad_scale=None, stochastic_rounding=False, tensor_index=0, **hyperparameters)
--

Apply one step of an update rule in place, fused over all tensors.

Args:
    bytecode_or_program: a Program, or its ``.bytecode``.
    params: N tensors, updated in place: torch.Tensor (torch >= 2.10) or numpy.ndarray, of any shape. float32,
        bfloat16 and float16 compute in fp32, float64 in double. Dense memory in any order of dimensions.
    grads: N tensors of the parameters' shapes and strides, or None to skip a parameter. Never written.
    state: ``{name: [N tensors]}`` for every state of the rule, or the lists in slot order; updated in place.
        `init_state` makes it. Any float dtype but float64 beside a parameter that is not float64.
    lr: learning rate, a number or a one-element tensor.
    step: 1-based number of this step (``t`` of the rule; bias corrections and random draws depend on it).
    total_steps: length of the training in steps (``T`` of the rule); required by rules that read it.
    seed: 64-bit key of the rule's random draws.
    maximize: negate the gradients.
    grad_scale: the gradients are divided by it (loss scaling); a number or a one-element tensor, not 0.
    stochastic_rounding: round results that are stored in bfloat16 or float16 up or down at random, so that their mean
        is the fp32 result, and not to the nearest; keyed by seed and step.
    tensor_index: number of params[0] in the key of random draws, so that a list applied in pieces draws the same.
    **hyperparameters: values for the rule's other scalars; the rest take their defaults.

Raises:
    ValueError, TypeError: an argument that does not fit, named with its list and index. Nothing has been written.
)";

PyMethodDef g_apply_rule = {"apply_rule", fast_function(call_apply_rule), METH_FASTCALL | METH_KEYWORDS, kApplyDoc};

}  // namespace

void bind_apply(py::module_& m) {
  add_function(m, g_apply_rule);
  m.def(
      "set_tuning",
      [](int block, int64_t chunk, int threads) {
        if (block < 0 || block % 4 || chunk < 0 || chunk % 4 || threads < 0)
          throw std::invalid_argument("block and chunk must be multiples of 4 and not negative, threads not negative");
        cpu::set_tuning({block, chunk, threads});
      },
      py::arg("block") = 0, py::arg("chunk") = 0, py::arg("threads") = 0,
      "For tests and benches: elements per block, elements per chunk of work, threads; 0 means the engine's choice.");
}

}  // namespace nos::bind
