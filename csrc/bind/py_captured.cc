// Binds CapturedStep, a step that a CUDA graph can hold. nos_ext/captured.py is its public face, with names and
// defaults.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "../backend/cuda/runtime/captured_step.h"
#include "arguments.h"
#include "bind.h"
#include "call.h"
#include "instances.h"
#include "tensor_type.h"
#include "tensors.h"

namespace py = pybind11;

namespace nos::bind {

namespace {

class PyCapturedStep {
 public:
  PyCapturedStep(const py::list& programs, bool population, py::object params, py::object grads,
                 const std::vector<py::object>& states, const std::vector<uint32_t>& group_of, uint32_t rows,
                 uint32_t tensor_index, uint32_t max_instructions, uint32_t max_scalars, uint32_t max_temporaries,
                 bool in_capture)
      : in_capture_(in_capture) {
    tensors_.add("params", params, Access::write);
    tensors_.add("grads", grads, Access::read_or_none);
    for (size_t s = 0; s < states.size(); ++s)
      tensors_.add("state[" + std::to_string(s) + "]", states[s], Access::write);
    tensors_.settle();
    tensors_.read();
    if (!std::ranges::any_of(tensors_.lists()[0].tensors, &TensorRef::on_cuda))
      throw TensorError("params are on the CPU, which has no CUDA graphs; use apply_rule, or move the tensors");
    std::vector<const Program*> list;
    for (const py::handle p : programs) list.push_back(&p.cast<const Program&>());
    for (const Program* p : list) check_states(*p);
    const Snapshot known = tensors_.snapshot();
    tensors_.check_storage();
    tensors_.check_unmoved(known);
    tensors_.read();
    const auto slices = static_cast<uint32_t>(population ? list.size() : 0);
    Plan plan = make_plan(tensors_.lists(), tensor_index, slices);
    if (!population)
      for (PlannedTensor& t : plan.tensors) t.row = group_of.at(t.index - tensor_index);
    if (plan.tensors.empty())
      throw TensorError("no parameter has a gradient and elements; there is nothing to capture");
    std::vector<uint32_t> row_program(rows, 0);
    for (uint32_t r = 0; population && r < rows; ++r) row_program[r] = r;
    first_ = plan.tensors[0].index - tensor_index;
    const int device = tensors_.lists()[0].tensors[first_].device;
    const cuda::OnDevice on(device);
    uploading(device, [&](cudaStream_t stream) {
      step_.emplace(plan, list, row_program, cuda::Capacity{max_instructions, max_scalars, max_temporaries}, device,
                    stream);
    });
    keep_ = py::make_tuple(params, grads, py::cast(states));
  }

  // Sets the scalars of row r, one value for each hyperparameter of its program. `sources` has addresses of device
  // memory from which the values are read instead, or 0. Bit i of `wide` says that value i is a double there.
  void set_row(uint32_t r, uint64_t seed, double total_steps, const std::vector<double>& hypers,
               const std::vector<uintptr_t>& sources, uint64_t wide) {
    std::vector<const void*> from;
    for (const uintptr_t address : sources) from.push_back(reinterpret_cast<const void*>(address));
    edit([&](cuda::CapturedImage& image) {
      if (r >= image.rows() || std::max(hypers.size(), from.size()) > cuda::kRowHypers)
        throw std::out_of_range("row or hyperparameters");
      return std::vector{image.set_row(r, seed, total_steps, hypers, from, wide)};
    });
  }
  // `counter` is the address of a float64 in device memory that holds the number of the step, or 0.
  void set_head(uint32_t steps_done, double factor, bool stochastic_rounding, uintptr_t counter) {
    edit([&](cuda::CapturedImage& image) {
      return std::vector{
          image.set_head(steps_done, factor, stochastic_rounding, reinterpret_cast<const double*>(counter))};
    });
  }
  void load(uint32_t k, const Program& program) {
    check_states(program);
    edit([&](cuda::CapturedImage& image) {
      if (k >= image.job().programs.size()) throw std::out_of_range("program number");
      return image.load(k, program);
    });
  }
  void launch() {
    const cuda::OnDevice on(step_->device());
    step_->launch(static_cast<cudaStream_t>(current_stream(tensors_.object(first_), device())));
    tensors_.mark_modified();
  }
  uint32_t steps_done() {
    const cuda::OnDevice on(step_->device());
    auto* stream = static_cast<cudaStream_t>(current_stream(tensors_.object(first_), device()));
    if (cuda::is_capturing(stream)) refuse_capture();
    return step_->steps_done(stream);
  }

 private:
  int device() const { return tensors_.lists()[0].tensors[first_].device; }
  [[noreturn]] static void refuse_capture() {
    throw std::runtime_error(
        "a CapturedStep cannot be made, changed or read inside a CUDA graph capture; do it before, and only call it "
        "inside");
  }
  // Calls work(stream) with the stream for uploads: the current one, or one beside the capture while there is a
  // capture.
  template <class F>
  void uploading(int device, const F& work) const {
    auto* stream = static_cast<cudaStream_t>(current_stream(tensors_.object(first_), device));
    if (!cuda::is_capturing(stream)) {
      cuda::CapturedStep::settle();
      return work(stream);
    }
    if (!in_capture_) refuse_capture();
    cuda::BesideCapture beside(device);
    work(beside.stream());
    beside.finish();
  }
  void check_states(const Program& program) const {
    const size_t lists = tensors_.lists().size() - 2;
    if (program.states().size() > lists)
      throw std::invalid_argument("rule '" + program.name() + "' has " + std::to_string(program.states().size()) +
                                  " states but state has " + std::to_string(lists) +
                                  " lists; make the captured step with as many as its largest rule needs");
  }
  template <class F>
  void edit(const F& change) {
    const cuda::OnDevice on(step_->device());
    uploading(step_->device(), [&](cudaStream_t stream) {
      step_->begin_edit();
      step_->upload(change(step_->image()), stream);
    });
  }

  const bool in_capture_;  // whether it may be made and set inside a capture; what is set there is on the device before
                           // the graph runs
  TensorLists tensors_;
  size_t first_ = 0;  // index of a parameter on the device
  py::object keep_;   // the lists of tensors, whose addresses are in the graph
  std::optional<cuda::CapturedStep> step_;
};

}  // namespace

void bind_captured(py::module_& m) {
  py::class_<PyCapturedStep> step(m, "CapturedStep", py::custom_type_setup(checked_new), "See nos_ext.CapturedStep.");
  def_init<const py::list&, bool, py::object, py::object, const std::vector<py::object>&, const std::vector<uint32_t>&,
           uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, bool>(
      step, [](auto&&... args) { return std::make_unique<PyCapturedStep>(std::forward<decltype(args)>(args)...); },
      py::arg("programs"), py::arg("population"), py::arg("params"), py::arg("grads"), py::arg("states"),
      py::arg("group_of"), py::arg("rows"), py::arg("tensor_index"), py::arg("max_instructions"),
      py::arg("max_scalars"), py::arg("max_temporaries"), py::arg("in_capture") = false);
  step.def("set_row", &PyCapturedStep::set_row, py::arg("row"), py::arg("seed"), py::arg("total_steps"),
           py::arg("hypers"), py::arg("sources") = std::vector<uintptr_t>(), py::arg("wide") = 0)
      .def("set_head", &PyCapturedStep::set_head, py::arg("steps_done"), py::arg("factor"),
           py::arg("stochastic_rounding") = false, py::arg("counter") = 0)
      .def("load", &PyCapturedStep::load, py::arg("number"), py::arg("program"))
      .def("launch", &PyCapturedStep::launch)
      .def("steps_done", &PyCapturedStep::steps_done);
}

}  // namespace nos::bind
