// Binds CapturedStep, a step that a graph of the device can hold. nos_ext/captured.py is its public face, with names
// and defaults.
#include <pybind11/stl.h>

#include <memory>

#include "../backend/backend.h"
#include "../plan/device.h"
#include "../program/passes.h"
#include "arguments.h"
#include "bind.h"
#include "instances.h"
#include "tensors.h"

namespace py = pybind11;

namespace nos::bind {

namespace {

class PyCapturedStep {
 public:
  PyCapturedStep(const py::list& programs, bool population, py::object params, py::object grads,
                 const std::vector<py::object>& states, const std::vector<uint32_t>& group_of, uint32_t rows,
                 uint32_t tensor_index, uint32_t max_instructions, uint32_t max_scalars, uint32_t max_temporaries,
                 bool in_capture, const std::vector<py::object>& scales) {
    tensors_.add("params", params, Access::write);
    tensors_.add("grads", grads, Access::read_or_none);
    for (size_t s = 0; s < states.size(); ++s)
      tensors_.add("state[" + std::to_string(s) + "]", states[s], scales.empty() ? Access::write : Access::state);
    for (size_t s = 0; s < scales.size(); ++s)
      tensors_.add("scales of state[" + std::to_string(s) + "]", scales[s], Access::scales);
    tensors_.settle();
    tensors_.read_anew();
    std::vector<const Program*> list;
    for (const py::handle p : programs) list.push_back(&p.cast<const Program&>());
    for (const Program* p : list) check_states(*p);
    const auto slices = static_cast<uint32_t>(population ? list.size() : 0);
    Plan plan = make_plan(tensors_.lists(), tensor_index, slices, number_slots(list), {}, tensors_.num_scales());
    if (!population)
      for (PlannedTensor& t : plan.tensors) t.row = group_of.at(t.index - tensor_index);
    if (plan.tensors.empty())
      throw TensorError("no parameter has a gradient and elements; there is nothing to capture");
    std::vector<uint32_t> row_program(rows, 0);
    for (uint32_t r = 0; population && r < rows; ++r) row_program[r] = r;
    device_ = device_of_call(tensors_.lists());
    const Capacity capacity{max_instructions, max_scalars, max_temporaries};
    backend_ = &backend_of(device_.kind);
    step_ = backend_->capture(plan, list, row_program, capacity, in_capture, place());
    keep_ = py::make_tuple(params, grads, py::cast(states), py::cast(scales));
  }

  // Sets the scalars of row r, one value for each hyperparameter of its program. `sources` has addresses of device
  // memory from which the values are read instead, or 0. Bit i of `wide` says that value i is a double there.
  void set_row(uint32_t r, uint64_t seed, double total_steps, const std::vector<double>& hypers,
               const std::vector<uintptr_t>& sources, uint64_t wide) {
    std::vector<const void*> from;
    for (const uintptr_t address : sources) from.push_back(reinterpret_cast<const void*>(address));
    step_->set_row(r, seed, total_steps, hypers, from, wide, place());
  }
  // `counter` is the address of a float64 in device memory that holds the number of the step, or 0.
  void set_head(uint32_t steps_done, double factor, const py::object& rounding, uintptr_t counter) {
    step_->set_head(steps_done, factor, read_rounding("stochastic_rounding", rounding.ptr()),
                    reinterpret_cast<const double*>(counter), place());
  }
  void load(uint32_t k, const Program& program) {
    check_states(program);
    step_->load(k, program, place());
  }
  void launch() {
    step_->launch(place());
    tensors_.mark_modified();
  }
  uint32_t steps_done() { return step_->steps_done(place()); }

 private:
  Place place() const { return tensors_.place(*backend_, device_); }
  void check_states(const Program& program) const {
    const size_t lists = tensors_.lists().size() - tensors_.num_scales() - 2;
    if (program.states().size() > lists)
      throw std::invalid_argument("rule '" + program.name() + "' has " + std::to_string(program.states().size()) +
                                  " states but state has " + std::to_string(lists) +
                                  " lists; make the captured step with as many as its largest rule needs");
  }

  TensorLists tensors_;
  Device device_;
  const Backend* backend_;
  py::object keep_;  // the lists of tensors: the graph holds their addresses
  std::unique_ptr<CapturedStep> step_;
};

}  // namespace

void bind_captured(py::module_& m) {
  py::class_<PyCapturedStep> step(m, "CapturedStep", py::custom_type_setup(checked_new), "See nos_ext.CapturedStep.");
  def_init<const py::list&, bool, py::object, py::object, const std::vector<py::object>&, const std::vector<uint32_t>&,
           uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, bool, const std::vector<py::object>&>(
      step, [](auto&&... args) { return std::make_unique<PyCapturedStep>(std::forward<decltype(args)>(args)...); },
      py::arg("programs"), py::arg("population"), py::arg("params"), py::arg("grads"), py::arg("states"),
      py::arg("group_of"), py::arg("rows"), py::arg("tensor_index"), py::arg("max_instructions"),
      py::arg("max_scalars"), py::arg("max_temporaries"), py::arg("in_capture") = false,
      py::arg("scales") = std::vector<py::object>());
  step.def("set_row", &PyCapturedStep::set_row, py::arg("row"), py::arg("seed"), py::arg("total_steps"),
           py::arg("hypers"), py::arg("sources") = std::vector<uintptr_t>(), py::arg("wide") = 0)
      .def("set_head", &PyCapturedStep::set_head, py::arg("steps_done"), py::arg("factor"),
           py::arg("stochastic_rounding") = false, py::arg("counter") = 0)
      .def("load", &PyCapturedStep::load, py::arg("number"), py::arg("program"))
      .def("launch", &PyCapturedStep::launch)
      .def("steps_done", &PyCapturedStep::steps_done);
}

}  // namespace nos::bind
