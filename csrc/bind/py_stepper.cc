// Binds Stepper, which holds what an optimizer of nos_ext.optim keeps between steps. In the steady state a step is one
// call. It sees that nothing has been replaced, collects the gradients, and runs the engine once for all param groups.
// Parts of different step numbers get an engine call each, but all in one where the rule has reductions over all
// parameters.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <numeric>
#include <optional>

#include "../program/program.h"
#include "arguments.h"
#include "bind.h"
#include "instances.h"
#include "plan_cache.h"
#include "scalars.h"
#include "tensors.h"
#include "watch.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Parameters with the same step number and flags.
struct Part {
  std::vector<uint32_t> members;
  uint64_t step;  // number of steps taken so far
  double total_steps;
  bool maximize;
  Rounding rounding;
  uint64_t seed;
};

// The parts from `first` to before `end`, which go into one engine call. There is a row of scalars for each part and
// group.
struct EngineCall {
  size_t first, end;
  std::vector<size_t> row_sizes;
  std::vector<uint64_t> seeds;
  std::vector<uint32_t> row_of;  // of each parameter
  PlanCache plans;
  bool is_joint() const { return end - first > 1; }
};

struct Division {
  std::vector<Part> parts;
  std::deque<EngineCall> calls;
};

class Stepper {
 public:
  // `tensors` and `states` are what the engine gets for every parameter; they are read at every step. `counts` is the
  // memory of `steps`, a float64 tensor with the number of steps that every parameter has taken. float64 counts exactly
  // far beyond the last step that there can be.
  // programs[program_of[g]] is the rule of group g, and hypers[g] has the names of its hyperparameters.
  // `scales` are the lists of the scales of `states`, or nothing where no state is quantized.
  Stepper(py::list programs, std::vector<uint32_t> program_of, py::list groups, py::dict state, py::list hypers,
          py::tuple flags, py::list tensors, py::list states, py::list scales, py::object steps, uintptr_t counts)
      : program_objects_(std::move(programs)),
        group_program_(std::move(program_of)),
        watch_(std::move(groups), std::move(state), std::move(hypers), std::move(flags)),
        tensors_(std::move(tensors)),
        states_(std::move(states)),
        scales_(std::move(scales)),
        steps_(std::move(steps)),
        counts_(reinterpret_cast<double*>(counts)) {
    for (const py::handle program : program_objects_) programs_.push_back(&program.cast<const Program&>());
    if (group_program_.size() != watch_.num_groups() ||
        std::ranges::any_of(group_program_, [&](uint32_t p) { return p >= programs_.size(); }))
      throw std::invalid_argument("program_of must have the number of a program for each group");
    for (size_t s = 0; s < states_.size(); ++s)
      labels_.push_back(programs_.size() == 1 ? "state['" + programs_[0]->states().at(s) + "']"
                                              : "states[" + std::to_string(s) + "]");
    if (programs_.size() > 1)
      for (const uint32_t g : watch_.group_of()) param_program_.push_back(group_program_[g]);
  }

  // Each of `parts` is (members, steps taken, maximize, seed, total_steps, stochastic_rounding). `read` is what step()
  // gets. `common` has the values of the hyperparameters that are not among `hypers`: the last ones of the program.
  void divide(const py::list& parts, const py::object& read, const std::vector<double>& common) {
    watch_.remember();
    if (watch_.params().size() != num_params_)
      throw std::runtime_error("param_groups was changed while a step was reading it; change it between steps");
    present_.assign(watch_.params().size(), false);
    known_counts_.assign(counts_, counts_ + watch_.params().size());
    if (watch_.num_groups() != group_program_.size())
      throw std::runtime_error("param_groups was changed while a step was reading it; change it between steps");
    rows_.clear();
    for (size_t g = 0; g < group_program_.size(); ++g) {
      std::vector<double>& row = rows_.emplace_back(program(g).hypers().size(), NAN);
      if (common.size() > row.size())
        throw std::invalid_argument("common has more values than there are hyperparameters");
      std::ranges::copy(common, row.end() - static_cast<ptrdiff_t>(common.size()));
    }
    reread_.clear();
    take(watch_.values(), read);
    division_ = std::make_shared<Division>();
    for (const py::handle part : parts) {
      const auto t = py::reinterpret_borrow<py::tuple>(part);
      Part& to = division_->parts.emplace_back();
      to.members = t[0].cast<std::vector<uint32_t>>();
      to.step = t[1].cast<uint64_t>();
      to.maximize = t[2].cast<bool>();
      to.seed = t[3].cast<uint64_t>();
      to.total_steps = t[4].is_none() ? NAN : t[4].cast<double>();
      to.rounding = read_rounding("stochastic_rounding", py::object(t[5]).ptr());
      for (const uint32_t i : to.members) {
        present_.at(i) = true;
        const Program& rule = program(watch_.group_of()[i]);
        if (rule.uses_total_steps() && std::isnan(to.total_steps))
          throw std::invalid_argument("total_steps is None; rule '" + rule.name() +
                                      "' reads T: pass the length of the training in steps");
      }
    }
    divide_into_calls();
  }

  Change step(const py::object& groups, const py::object& state, const py::object& read, py::object scale,
              py::object grads) {
    std::vector<Watch::NewValue> values;
    Change change = watch_.look(groups.ptr(), state.ptr(), values);
    if (change == Change::structure) return change;
    if (grads.is_none()) grads = gradients();
    if (static_cast<size_t>(PyList_GET_SIZE(grads.ptr())) != watch_.params().size()) return Change::structure;
    if (present_.size() != watch_.params().size() || !same_counts() || !same_presence(grads.ptr()) || at_the_end())
      change = Change::division;  // the caller then checks the numbers of steps
    if (change != Change::none) return change;
    take(values, read);
    run(std::move(grads), std::move(scale));
    return Change::none;
  }

  py::list gradients() const {
    static PyObject* const grad = interned("grad");
    const std::vector<py::object> params = watch_.params();  // a copy, as a property `grad` may change param_groups
    py::list out(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      PyObject* value = PyObject_GetAttr(params[i].ptr(), grad);
      if (!value) throw py::error_already_set();
      PyList_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), value);
    }
    return out;
  }

  // The global norm of the gradients in the last step; NaN where the rule does not compute it, the back-end does not
  // tell, or there has been no step.
  double gradient_norm() const { return gradient_norm_; }

  int traverse(visitproc visit, void* arg) const {
    for (const py::object* one : std::initializer_list<const py::object*>{&tensors_, &states_, &scales_, &steps_})
      Py_VISIT(one->ptr());
    for (const Watch::NewValue& r : reread_) Py_VISIT(r.value.ptr());
    return watch_.traverse(visit, arg);
  }
  void clear() {
    watch_.clear();
    present_.clear();
    reread_.clear();
    tensors_ = states_ = scales_ = py::list();
  }

 private:
  // One call for each part, or one for all of them where the rule has reductions over all parameters.
  void divide_into_calls() {
    const std::vector<Part>& parts = division_->parts;
    const size_t step = std::ranges::any_of(programs_, &Program::has_global_reductions) ? parts.size() : 1;
    const size_t groups = watch_.num_groups();
    for (size_t first = 0; first < parts.size(); first += step) {
      EngineCall& call = division_->calls.emplace_back();
      call.first = first;
      call.end = first + step;
      call.row_of = watch_.group_of();
      for (size_t k = first; k < call.end; ++k) {
        for (size_t g = 0; g < groups; ++g) call.row_sizes.push_back(static_cast<size_t>(program(g).num_scalars()));
        call.seeds.insert(call.seeds.end(), groups, parts[k].seed);
        for (const uint32_t i : parts[k].members) call.row_of[i] += static_cast<uint32_t>((k - first) * groups);
      }
    }
  }

  const Program& program(size_t group) const { return *programs_[group_program_[group]]; }

  bool same_counts() const {
    for (size_t i = 0; i < known_counts_.size(); ++i)
      if (counts_[i] != known_counts_[i]) return false;
    return true;
  }

  // Whether some parameter has taken the last step that has a number: random draws are keyed by 32 bits of it.
  bool at_the_end() const {
    return std::ranges::any_of(division_->parts, [](const Part& part) { return part.step >= UINT32_MAX; });
  }

  bool same_presence(PyObject* grads) const {
    for (size_t i = 0; i < present_.size(); ++i)
      if ((PyList_GET_ITEM(grads, static_cast<Py_ssize_t>(i)) != Py_None) != present_[i]) return false;
    return true;
  }

  // Puts numbers into the rows. read(group, hyper, value) says what a value that is not a float means: a float, or a
  // tensor or function of the step, which is then evaluated at every step.
  void take(const std::vector<Watch::NewValue>& values, const py::object& read) {
    for (const Watch::NewValue& v : values) {
      const py::object meaning = PyFloat_CheckExact(v.value.ptr()) ? v.value : read(v.group, v.hyper, v.value);
      std::erase_if(reread_, [&](const auto& r) { return r.group == v.group && r.hyper == v.hyper; });
      if (PyFloat_CheckExact(meaning.ptr()))
        rows_[v.group][v.hyper] = PyFloat_AS_DOUBLE(meaning.ptr());
      else
        reread_.push_back({v.group, v.hyper, meaning});
    }
    watch_.keep(values);
  }

  void reread(uint64_t steps) {
    if (reread_.empty()) return;
    const std::vector<Watch::NewValue> values = reread_;  // a copy, as a function may call step()
    for (const Watch::NewValue& r : values) {
      const py::object value = PyCallable_Check(r.value.ptr()) ? r.value(steps) : r.value;
      rows_[r.group][r.hyper] = read_number(program(r.group).hypers()[r.hyper].name, value.ptr());
    }
  }

  // What an engine call gets in one step.
  struct Ready {
    CallTensors tensors;
    std::optional<ReadyJob> job;
    std::vector<double> scalars;
    std::vector<const double*> rows;
    std::vector<RowArgs> of_rows;  // of joint calls
    py::object grads;
  };

  // Makes everything for all calls before the first one runs, so that an error changes nothing. Python code runs only
  // before the tensors are read, since it may change what they are.
  void run(py::object grads, py::object scale) {
    const double grad_scale = read_grad_scale(scale.ptr());
    std::deque<Ready> ready;
    // A function of the step, or another thread while the engine runs, may call divide() and replace division_.
    const std::shared_ptr<Division> kept = division_;
    std::deque<EngineCall>& calls = kept->calls;
    for (const EngineCall& call : calls) {
      Ready& r = ready.emplace_back();
      r.grads = calls.size() == 1 ? grads : only(kept->parts[call.first].members, grads.ptr());
      evaluate(*kept, call, grad_scale, r);
    }
    for (Ready& r : ready) {
      r.tensors->add("params", tensors_, Access::write);
      r.tensors->add("grads", r.grads, Access::read_or_none);
      for (size_t s = 0; s < labels_.size(); ++s)
        r.tensors->add(labels_[s], PyList_GET_ITEM(states_.ptr(), static_cast<Py_ssize_t>(s)), Access::state);
      for (size_t s = 0; s < scales_.size(); ++s)
        r.tensors->add("scales of " + labels_[s], PyList_GET_ITEM(scales_.ptr(), static_cast<Py_ssize_t>(s)),
                       Access::scales);
      r.tensors->settle();
    }
    bool releases_gil = false;
    for (size_t k = 0; k < calls.size(); ++k) {
      Ready& r = ready[k];
      r.job.emplace(calls[k].plans.get(*r.tensors, programs_, {0, 0, calls[k].row_of, param_program_}));
      if (calls[k].is_joint()) r.job->check_takes_rows_apart();
      releases_gil |= r.job->is_long();
    }
    if (calls.size() > 1)  // making a job may have run Python code
      for (const Ready& r : ready) r.tensors->check_unmoved(r.job->tensors());
    if (releases_gil)  // while one call runs, the tensors of the others may change
      for (const Ready& r : ready) r.tensors->own_memory(r.job->tensors());
    double norm = calls.empty() ? 0 : NAN;
    for (size_t k = 0; k < calls.size(); ++k) {
      EngineCall& call = calls[k];
      Ready& r = ready[k];
      const RowArgs first = row_args(kept->parts[call.first], grad_scale);
      const StepArgs args{
          r.rows.data(), call.row_sizes.data(), r.rows.size(),  call.seeds.data(),
          first.step,    first.factor,          first.rounding, call.is_joint() ? r.of_rows.data() : nullptr,
          &norm};
      r.job->run(args, *r.tensors);
      for (size_t p = call.first; p < call.end; ++p) {
        kept->parts[p].step += 1;
        for (const uint32_t i : kept->parts[p].members) known_counts_[i] = counts_[i] += 1;
      }
    }
    if (division_ != kept) present_.clear();  // made of counts that have changed meanwhile: the next step divides anew
    gradient_norm_ = norm;
    for (const Ready& r : ready) r.tensors->mark_modified();
  }

  static RowArgs row_args(const Part& part, double grad_scale) {
    return {static_cast<uint32_t>(part.step + 1), gradient_factor(part.maximize ? -1 : 1, grad_scale), part.rounding};
  }

  // Evaluates the scalars of a call. Functions of the step are Python code.
  void evaluate(const Division& division, const EngineCall& call, double grad_scale, Ready& r) {
    const size_t groups = group_program_.size();
    r.scalars.resize(std::accumulate(call.row_sizes.begin(), call.row_sizes.end(), size_t{0}));
    double* row = r.scalars.data();
    r.rows.reserve(call.row_sizes.size());
    for (size_t k = call.first; k < call.end; ++k) {
      const Part& part = division.parts[k];
      reread(part.step);
      for (size_t g = 0; g < groups; ++g) {
        const size_t size = call.row_sizes[r.rows.size()];
        program(g).eval_scalars(static_cast<double>(part.step + 1), part.total_steps, rows_[g], {row, size});
        r.rows.push_back(row);
        row += size;
      }
      if (call.is_joint()) r.of_rows.insert(r.of_rows.end(), groups, row_args(part, grad_scale));
    }
  }

  static py::list only(const std::vector<uint32_t>& members, PyObject* grads) {
    py::list out(static_cast<size_t>(PyList_GET_SIZE(grads)));
    for (size_t i = 0; i < out.size(); ++i) out[i] = py::none();
    for (const uint32_t i : members)
      out[i] = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(grads, static_cast<Py_ssize_t>(i)));
    return out;
  }

  py::list program_objects_;
  std::vector<const Program*> programs_;
  std::vector<uint32_t> group_program_;  // of each group: its program
  std::vector<uint32_t> param_program_;  // of each parameter; empty where there is one program
  Watch watch_;
  py::list tensors_, states_, scales_;
  py::object steps_;
  double* const counts_;
  const size_t num_params_ = watch_.params().size();
  std::vector<double> known_counts_;
  std::vector<bool> present_;              // of each parameter: whether it had a gradient
  std::vector<std::vector<double>> rows_;  // the hyperparameters of every group
  std::vector<Watch::NewValue> reread_;
  double gradient_norm_ = NAN;
  std::vector<std::string> labels_;  // what messages call the lists of states
  std::shared_ptr<Division> division_ = std::make_shared<Division>();
};

// A function in a param group may refer to the optimizer, so the garbage collector has to see what a Stepper holds.
void collectable(PyHeapTypeObject* heap_type) {
  checked_new(heap_type);
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (!py::detail::is_holder_constructed(self)) return 0;
    return py::cast<Stepper&>(py::handle(self)).traverse(visit, arg);
  };
  type->tp_clear = [](PyObject* self) {
    if (py::detail::is_holder_constructed(self)) py::cast<Stepper&>(py::handle(self)).clear();
    return 0;
  };
}

}  // namespace

void bind_stepper(py::module_& m) {
  py::class_<Stepper> stepper(m, "Stepper", py::custom_type_setup(collectable));
  def_init<py::list, std::vector<uint32_t>, py::list, py::dict, py::list, py::tuple, py::list, py::list, py::list,
           py::object, uintptr_t>(
      stepper, [](auto&&... args) { return std::make_unique<Stepper>(std::move(args)...); }, py::arg("programs"),
      py::arg("program_of"), py::arg("groups"), py::arg("state"), py::arg("hypers"), py::arg("flags"),
      py::arg("tensors"), py::arg("states"), py::arg("scales"), py::arg("steps"), py::arg("counts"));
  stepper.def("divide", &Stepper::divide, py::arg("parts"), py::arg("read"), py::arg("common") = std::vector<double>())
      .def("gradients", &Stepper::gradients)
      .def_property_readonly("gradient_norm", &Stepper::gradient_norm)
      .def(
          "step",
          [](Stepper& self, const py::object& groups, const py::object& state, const py::object& read, py::object scale,
             py::object grads) {
            return static_cast<int>(self.step(groups, state, read, std::move(scale), std::move(grads)));
          },
          py::arg("groups"), py::arg("state"), py::arg("read"), py::arg("scale") = py::none(),
          py::arg("grads") = py::none());
}

}  // namespace nos::bind
