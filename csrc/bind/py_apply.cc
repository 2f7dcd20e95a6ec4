// Binds apply_rule as a METH_FASTCALL function. In the steady state it allocates nothing per tensor and runs no Python
// code.
#include <pybind11/stl.h>

#include "../backend/cpu/engine.h"
#include "../program/program.h"
#include "bind.h"
#include "call.h"
#include "plan_cache.h"
#include "scalars.h"
#include "states.h"
#include "tensors.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

PlanCache& plans_of(const Program& program) {  // guarded by the GIL
  auto& kept = program.kept.plans;
  if (!kept) kept = std::make_shared<PlanCache>();
  return *kept;
}

void apply_rule(Arguments arguments) {
  arguments.at_most(4, "apply_rule");
  py::object keep;
  const Program& program = read_program("bytecode_or_program", arguments.positional(0, "bytecode_or_program"), keep);
  PyObject* params = arguments.positional(1, "params");
  PyObject* grads = arguments.positional(2, "grads");
  PyObject* state = arguments.positional(3, "state");
  const Program* programs[] = {&program};
  const CallScalars scalars(Taker::apply_rule, programs, arguments);

  const CallTensors tensors;
  tensors->add("params", params, Access::write);
  tensors->add("grads", grads, Access::read_or_none);
  add_states(*tensors, Taker::apply_rule, programs, state);
  PlanCache& plans = plans_of(program);
  tensors->settle();
  const ReadyJob job = plans.get(*tensors, programs, {scalars.tensor_index(), 0, {}});

  std::vector<double>& slots = tensors->scalars;
  slots.resize(static_cast<size_t>(program.num_scalars()));
  scalars.evaluate(0, slots);
  const double* rows[] = {slots.data()};
  const size_t sizes[] = {slots.size()};
  const uint64_t seeds[] = {scalars.seed(0)};
  const StepArgs args{rows, sizes, 1, seeds, scalars.step(), scalars.factor(), scalars.rounding()};
  job.run(args, *tensors);
  tensors->mark_modified();
}

// Of rules that are several programs.
void apply_staged(Arguments arguments) {
  arguments.at_most(4, "apply_rule");
  py::tuple given(4);
  for (size_t i = 0; const char* name : {"bytecode_or_program", "params", "grads", "state"}) {
    given[i] = py::handle(arguments.positional(static_cast<Py_ssize_t>(i), name));
    ++i;
  }
  py::dict others;
  arguments.keywords(
      [&](std::string_view name, PyObject* value) { others[py::str(name.data(), name.size())] = py::handle(value); });
  const PyObject* done = PyObject_Call(staged().apply, given.ptr(), others.ptr());
  if (!done) throw py::error_already_set();
  Py_DECREF(done);
}

PyObject* call_apply_rule(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&] {
    const Arguments arguments{args, count, names};
    const PyObject* rule = count > 0 ? args[0] : Arguments(arguments).positional(0, "bytecode_or_program");
    if (Py_TYPE(rule) == staged().type)
      apply_staged(arguments);
    else
      apply_rule(arguments);
  });
}

const char* apply_doc() {
  static const std::string doc =
      signature(Taker::apply_rule) + R"(Apply one step of an update rule in place, fused over all tensors.

Args:
    bytecode_or_program: a Program, or its ``.bytecode``.
    params: N tensors, updated in place: torch.Tensor (torch >= 2.10) or numpy.ndarray, of any shape. float32,
        bfloat16 and float16 compute in fp32, float64 in double. Dense memory in any order of dimensions.
    grads: N tensors of the parameters' shapes and strides, or None to skip a parameter. Never written.
    state: ``{name: [N tensors]}`` for every state of the rule, or the lists in slot order; updated in place.
        `init_state` makes it. Any float dtype, but float64 beside a parameter that is not float64 only for states
        that are one number per tensor. A state may also be int8, or uint8 if it is never negative. Then
        ``state[name + ".scale"]`` has its scales, one for every 256 elements in memory order, and None for
        tensors whose state is of another dtype; `init_state` makes these, too.
)" + option_docs(Taker::apply_rule) +
      R"(    **hyperparameters: values for the rule's other scalars; the rest take their defaults.

Raises:
    ValueError, TypeError: an argument that does not fit, named with its list and index. Nothing has been written.
)";
  return doc.c_str();
}

PyMethodDef g_apply_rule = {"apply_rule", fast_function(call_apply_rule), METH_FASTCALL | METH_KEYWORDS, nullptr};

}  // namespace

void bind_apply(py::module_& m) {
  g_apply_rule.ml_doc = apply_doc();
  add_function(m, g_apply_rule);
  m.def(
      "set_staged",
      [](const py::type& type, py::object apply) {
        staged() = {reinterpret_cast<PyTypeObject*>(py::object(type).release().ptr()), apply.release().ptr()};
      },
      py::arg("type"), py::arg("apply"), "Gives apply_rule what it calls for a rule of that type, with its arguments.");
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
