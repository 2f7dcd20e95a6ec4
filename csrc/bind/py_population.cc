// Binds apply_population: K programs run on K slices of stacked tensors, in one call.
#include "bind.h"
#include "call.h"
#include "plan_cache.h"
#include "scalars.h"
#include "states.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

struct Population {
  std::vector<py::object> keep;
  std::vector<const Program*> programs;
};

Population read_programs(PyObject* source) {
  if (PyBytes_Check(source) || py::isinstance<Program>(source))
    throw py::type_error("programs is one program; pass a list of programs (nos_ext.apply_rule takes one)");
  // A copy, as reading a program may run Python code.
  const py::tuple items = as_fast_sequence("programs", source, "a list of programs");
  const size_t n = items.size();
  if (n == 0) throw std::invalid_argument("programs is empty; pass at least one program");
  Population out;
  out.keep.reserve(n);
  for (size_t k = 0; k < n; ++k) {
    PyObject* item = PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(k));
    py::object keep = py::reinterpret_borrow<py::object>(item);
    out.programs.push_back(&read_program("programs[" + std::to_string(k) + "]", item, keep));
    out.keep.push_back(std::move(keep));
  }
  return out;
}

// The scalars of all slices, in the form that the engine takes.
struct Rows {
  Rows(std::span<const Program* const> programs, const CallScalars& scalars) {
    size_t total = 0;
    for (const Program* p : programs) total += static_cast<size_t>(p->num_scalars());
    slots.resize(total);
    double* row = slots.data();
    for (size_t k = 0; k < programs.size(); ++k) {
      const auto size = static_cast<size_t>(programs[k]->num_scalars());
      scalars.evaluate(k, {row, size});
      rows.push_back(row);
      sizes.push_back(size);
      seeds.push_back(scalars.seed(k));
      row += size;
    }
  }
  std::vector<double> slots;  // all rows, one after the other
  std::vector<const double*> rows;
  std::vector<size_t> sizes;
  std::vector<uint64_t> seeds;
};

PlanCache& plans() {  // guarded by the GIL; never freed, as the interpreter may be gone at exit
  static PlanCache& cache = *new PlanCache();
  return cache;
}

void apply_population(Arguments arguments) {
  arguments.at_most(4, "apply_population");
  const Population population = read_programs(arguments.positional(0, "programs"));
  PyObject* params = arguments.positional(1, "params");
  PyObject* grads = arguments.positional(2, "grads");
  PyObject* state = arguments.positional(3, "state");
  const CallScalars scalars(Taker::apply_population, population.programs, arguments);
  const CallTensors tensors;
  tensors->add("params", params, Access::write);
  tensors->add("grads", grads, Access::read_or_none);
  add_states(*tensors, Taker::apply_population, population.programs, state);
  tensors->settle();
  const auto slices = static_cast<uint32_t>(population.programs.size());
  const ReadyJob job = plans().get(*tensors, population.programs, {scalars.tensor_index(), slices, {}});
  const Rows rows(population.programs, scalars);
  const StepArgs args{rows.rows.data(), rows.sizes.data(), rows.rows.size(),  rows.seeds.data(),
                      scalars.step(),   scalars.factor(),  scalars.rounding()};
  job.run(args, *tensors);
  tensors->mark_modified();
}

PyObject* call_apply_population(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&] { apply_population({args, count, names}); });
}

const char* population_doc() {
  static const std::string doc =
      signature(Taker::apply_population) +
      R"(Apply K update rules to K slices of stacked tensors, in place and in one call.

Slice k (index k of the leading dimension) is updated as ``apply_rule(programs[k], ...)`` would update it, bit for bit.

Args:
    programs: K programs (or their bytecode), which may differ in everything.
    params: tensors of shape [K, ...], contiguous along the leading dimension; updated in place.
    grads: tensors of the parameters' shapes and strides, or None to skip a parameter.
    state: lists of tensors of shape [K, ...] in slot order, as many as the program with the most states has; slices of
        programs with fewer are left alone. A dict {name: [tensors]} if all programs name the same states.
        `init_population_state` makes the lists.
)" + option_docs(Taker::apply_population) +
      R"(    **hyperparameters: one number for all slices, or a sequence of K; reaches the programs that have one of that name.

Raises:
    ValueError, TypeError: an argument that does not fit, named with its list and index. Nothing has been written.
)";
  return doc.c_str();
}

PyMethodDef g_apply_population = {"apply_population", fast_function(call_apply_population),
                                  METH_FASTCALL | METH_KEYWORDS, nullptr};

}  // namespace

void bind_population(py::module_& m) {
  g_apply_population.ml_doc = population_doc();
  add_function(m, g_apply_population);
}

}  // namespace nos::bind
