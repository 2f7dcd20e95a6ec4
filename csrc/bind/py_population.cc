// apply_population: K programs on K slices of stacked tensors, in one call.
#include <cmath>
#include <optional>

#include "arguments.h"
#include "bind.h"
#include "call.h"
#include "devices.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// A scalar argument of the call: one value for all slices, or one each.
class PerSlice {
 public:
  PerSlice(std::string_view name, PyObject* value, size_t slices) {
    const bool sequence = PyList_Check(value) || PyTuple_Check(value) ||
                          (py::hasattr(value, "__len__") && py::hasattr(value, "ndim") &&
                           py::handle(value).attr("ndim").cast<int>() == 1);
    if (!sequence) {
      values_.assign(1, read_number(name, value));
      return;
    }
    const auto items = py::reinterpret_steal<py::object>(PySequence_Fast(value, ""));
    if (!items) throw py::error_already_set();
    const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
    if (n != slices)
      throw std::invalid_argument(std::string(name) + " has " + std::to_string(n) + " values but there are " +
                                  std::to_string(slices) + " programs; pass one number or one per program");
    for (size_t k = 0; k < n; ++k)
      values_.push_back(read_number(std::string(name) + "[" + std::to_string(k) + "]",
                                    PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(k))));
  }
  double operator[](size_t k) const { return values_[values_.size() == 1 ? 0 : k]; }

 private:
  std::vector<double> values_;
};

struct Population {
  std::vector<py::object> keep;
  std::vector<const Program*> programs;
  size_t max_states = 0;
};

Population read_programs(PyObject* source) {
  if (PyBytes_Check(source) || py::isinstance<Program>(source))
    throw py::type_error("programs is one program; pass a list of programs (nos_ext.apply_rule takes one)");
  const auto items = py::reinterpret_steal<py::object>(PySequence_Fast(source, "programs is not a list of programs"));
  if (!items) throw py::error_already_set();
  const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
  if (n == 0) throw std::invalid_argument("programs is empty; pass at least one program");
  Population out;
  out.keep.reserve(n);
  for (size_t k = 0; k < n; ++k) {
    PyObject* item = PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(k));
    py::object keep = py::reinterpret_borrow<py::object>(item);
    out.programs.push_back(&read_program("programs[" + std::to_string(k) + "]", item, keep));
    out.keep.push_back(std::move(keep));
    out.max_states = std::max(out.max_states, out.programs.back()->states().size());
  }
  return out;
}

void add_states(TensorLists& tensors, const Population& population, PyObject* state) {
  if (PyDict_Check(state)) {
    const auto& names = population.programs[0]->states();
    for (size_t k = 1; k < population.programs.size(); ++k)
      if (population.programs[k]->states() != names)
        throw std::invalid_argument(
            "state is a dict but programs[0] and programs[" + std::to_string(k) +
            "] name different states; pass the lists in slot order (nos_ext.init_population_state makes them)");
    bool fits = static_cast<size_t>(PyDict_GET_SIZE(state)) == names.size();
    for (const auto& name : names) fits = fits && PyDict_GetItemString(state, name.c_str());
    if (!fits) throw std::invalid_argument("state does not have exactly the keys of the programs' states");
    for (const auto& name : names)
      tensors.add("state['" + name + "']", PyDict_GetItemString(state, name.c_str()), Access::write);
    return;
  }
  if (!PySequence_Check(state) || PyUnicode_Check(state) || PyBytes_Check(state))
    throw py::type_error("state is no dict and no sequence; pass the lists of states in slot order");
  const auto n = static_cast<size_t>(PySequence_Size(state));
  if (n != population.max_states)
    throw std::invalid_argument("state has " + std::to_string(n) + " lists but the programs have up to " +
                                std::to_string(population.max_states) +
                                " states (nos_ext.init_population_state makes them)");
  for (size_t s = 0; s < n; ++s) {
    const auto list = py::reinterpret_steal<py::object>(PySequence_GetItem(state, static_cast<Py_ssize_t>(s)));
    if (!list) throw py::error_already_set();
    tensors.add("state[" + std::to_string(s) + "]", list, Access::write);
  }
}

struct Scalars {
  std::vector<double> slots;  // all rows, one after the other
  std::vector<const double*> rows;
  std::vector<size_t> sizes;
  std::vector<uint64_t> seeds;
  StepScalars common;
};

Scalars read_scalars(const Population& population, const Arguments& arguments) {
  const size_t n = population.programs.size();
  Scalars out;
  std::vector<std::pair<std::string_view, PerSlice>> hypers;
  std::optional<PerSlice> lr, total_steps;
  std::vector<uint64_t> seeds;
  arguments.keywords([&](std::string_view name, PyObject* value) {
    if (out.common.read(name, value)) return;
    if (name == "lr") {
      lr.emplace(name, value, n);
    } else if (name == "total_steps") {
      if (value == Py_None) return;
      total_steps.emplace(name, value, n);
      for (size_t k = 0; k < n; ++k)
        if (!((*total_steps)[k] > 0))
          throw std::invalid_argument("total_steps is " + repr(value) + "; pass positive numbers of steps");
    } else if (name == "seed") {
      if (!PyList_Check(value) && !PyTuple_Check(value)) {
        seeds.assign(1, read_integer(name, value, 0, UINT64_MAX));
        return;
      }
      const auto items = py::reinterpret_borrow<py::sequence>(value);
      if (items.size() != n) throw std::invalid_argument("seed does not have one value per program");
      for (size_t k = 0; k < n; ++k) seeds.push_back(read_integer(name, py::object(items[k]).ptr(), 0, UINT64_MAX));
    } else {
      bool known = false;
      for (const Program* p : population.programs)
        for (const Hyper& h : p->hypers()) known = known || h.name == name;
      if (!known) throw py::type_error("none of the programs has a hyperparameter '" + std::string(name) + "'");
      hypers.emplace_back(name, PerSlice(name, value, n));
    }
  });
  if (!lr) throw py::type_error("argument 'lr' is missing; pass the learning rate as lr=");

  size_t total = 0;
  for (const Program* p : population.programs) total += static_cast<size_t>(p->num_scalars());
  out.slots.resize(total);
  out.seeds.assign(n, 0);
  double* row = out.slots.data();
  std::vector<double> values;
  for (size_t k = 0; k < n; ++k) {
    const Program& p = *population.programs[k];
    if (p.uses_total_steps() && !total_steps)
      throw std::invalid_argument("total_steps is None; programs[" + std::to_string(k) +
                                  "] reads T: pass the length of the training in steps");
    values.clear();
    for (const Hyper& h : p.hypers()) {
      values.push_back(h.value);
      for (const auto& [name, given] : hypers)
        if (h.name == name) values.back() = given[k];
    }
    values[0] = (*lr)[k];
    const auto size = static_cast<size_t>(p.num_scalars());
    p.eval_scalars(static_cast<double>(out.common.step), total_steps ? (*total_steps)[k] : NAN, values, {row, size});
    out.rows.push_back(row);
    out.sizes.push_back(size);
    if (!seeds.empty()) out.seeds[k] = seeds[seeds.size() == 1 ? 0 : k];
    row += size;
  }
  return out;
}

// The plan of the last population is used again while its tensors and programs are the same.
std::shared_ptr<const cpu::Prepared> plan_of(const Population& population, const TensorLists& tensors, uint32_t index) {
  static LastPlan& last = *new LastPlan();  // guarded by the GIL
  const size_t n = population.programs.size();
  // lowered code is compared, not programs: the plan keeps it alive, so its address cannot be used again
  const auto fits = [&](const cpu::Prepared& prepared) {
    bool same = prepared.code.size() == n;
    for (size_t k = 0; same && k < n; ++k)
      same = prepared.code[k] == population.programs[k]->attached(Attachment::cpu_code);
    return same;
  };
  return last.get(tensors, index, {}, fits, [&] {
    return cpu::prepare(make_plan(tensors.lists(), index, static_cast<uint32_t>(n)), population.programs);
  });
}

void apply_population(Arguments arguments) {
  arguments.at_most(4, "apply_population");
  const Population population = read_programs(arguments.positional(0, "programs"));
  PyObject* params = arguments.positional(1, "params");
  PyObject* grads = arguments.positional(2, "grads");
  PyObject* state = arguments.positional(3, "state");
  const Scalars scalars = read_scalars(population, arguments);
  const CallTensors tensors;
  tensors->add("params", params, Access::write);
  tensors->add("grads", grads, Access::read_or_none);
  add_states(*tensors, population, state);
  const cpu::StepArgs args{scalars.rows.data(),
                           scalars.sizes.data(),
                           scalars.rows.size(),
                           scalars.seeds.data(),
                           static_cast<uint32_t>(scalars.common.step),
                           scalars.common.factor(),
                           scalars.common.stochastic_rounding};
  const auto index = static_cast<uint32_t>(scalars.common.tensor_index);
  if (on_cuda(*tensors))
    ready_on_cuda(population.programs, *tensors, index, {}, static_cast<uint32_t>(population.programs.size()))(args);
  else
    run_job(*plan_of(population, *tensors, index), args, *tensors);
  tensors->mark_modified();
}

PyObject* call_apply_population(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return guarded([&] { apply_population({args, count, names}); });
}

constexpr const char* kDoc =
    R"(apply_population(programs, params, grads, state, *, lr, step=1, total_steps=None, seed=0, maximize=False, grad_scale=None, stochastic_rounding=False, tensor_index=0, **hyperparameters)
--

Apply K update rules to K slices of stacked tensors, in place and in one call.

Slice k (index k of the leading dimension) is updated as ``apply_rule(programs[k], ...)`` would update it, bit for bit.

Args:
    programs: K programs (or their bytecode), which may differ in everything.
    params: tensors of shape [K, ...], contiguous along the leading dimension; updated in place.
    grads: tensors of the parameters' shapes and strides, or None to skip a parameter.
    state: lists of tensors of shape [K, ...] in slot order, as many as the program with the most states has; slices of
        programs with fewer are left alone. A dict {name: [tensors]} if all programs name the same states.
        `init_population_state` makes the lists.
    lr, total_steps, **hyperparameters: one number for all slices, or a sequence of K numbers. A hyperparameter reaches
        the programs that have one of that name.
    seed: one integer, or K of them.
    step, maximize, grad_scale, stochastic_rounding, tensor_index: as in apply_rule.

Raises:
    ValueError, TypeError: an argument that does not fit, named with its list and index. Nothing has been written.
)";

PyMethodDef g_apply_population = {"apply_population", fast_function(call_apply_population),
                                  METH_FASTCALL | METH_KEYWORDS, kDoc};

}  // namespace

void bind_population(py::module_& m) { add_function(m, g_apply_population); }

}  // namespace nos::bind
