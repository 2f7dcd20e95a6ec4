// Owns what apply_rule and apply_population share: programs from Python objects, the last plan, the device check,
// running with the GIL released, and the way of C++ exceptions into Python.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>

#include "../backend/cpu/engine.h"
#include "../program/program.h"
#include "tensors.h"

namespace nos::bind {

// The program of a nos_ext.Program or of bytes; `keep` owns it. `name` is the argument's name in messages.
const Program& read_program(std::string_view name, PyObject* source, pybind11::object& keep);

// The plan of the last call: used again while the tensors are the same, patched while only gradients have moved.
class LastPlan {
 public:
  // The first half of TensorLists::read, which knows the tensors of the last call; on every device.
  void check_negation(TensorLists& tensors) {
    tensors.check_negation(seen_);
    if (seen_ != tensors.objects()) seen_ = tensors.objects();
  }

  // group_of: row of the scalar table for every tensor; empty when there is one row. fits(prepared): whether a plan for
  // the same tensors will do. make(): a new plan.
  template <class Fits, class Make>
  std::shared_ptr<const cpu::Prepared> get(const TensorLists& tensors, uint32_t tensor_index,
                                           std::span<const uint32_t> group_of, const Fits& fits, const Make& make) {
    const bool usable = prepared_ && tensor_index == tensor_index_ && tuning_ == cpu::tuning() &&
                        std::ranges::equal(group_of, group_of_) && fits(*prepared_);
    const Likeness likeness = usable ? tensors.compare(snapshot_) : Likeness::different;
    if (likeness == Likeness::same || (likeness == Likeness::moved && move(tensors))) {
      tensors.refresh(snapshot_);
      return prepared_;
    }
    tensors.check_storage();
    std::shared_ptr<cpu::Prepared> made = make();
    prepared_.reset();  // should memory run out below, no old plan stands beside a new snapshot
    snapshot_ = tensors.snapshot();
    group_of_.assign(group_of.begin(), group_of.end());
    tuning_ = cpu::tuning();
    tensor_index_ = tensor_index;
    prepared_ = std::move(made);
    return prepared_;
  }

 private:
  // A plan that another thread runs must stay as it is. (Copies come and go under the GIL only.)
  bool move(const TensorLists& tensors) {
    return prepared_.use_count() == 1 && move_gradients(prepared_->plan, tensors.lists()[bytecode::kG], tensor_index_);
  }

  std::vector<PyObject*> seen_;  // see TensorLists::objects
  Snapshot snapshot_;
  std::vector<uint32_t> group_of_;
  cpu::Tuning tuning_;
  uint32_t tensor_index_ = 0;
  std::shared_ptr<cpu::Prepared> prepared_;
};

// Whether run_job would give the GIL away.
bool is_long(const cpu::Prepared& prepared, const TensorLists& tensors);

// Runs a job; without the GIL where that pays, and then as an owner of the tensors' memory.
void run_job(const cpu::Prepared& prepared, const cpu::StepArgs& args, TensorLists& tensors);

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);
inline PyCFunction fast_function(FastFunction f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}
void add_function(pybind11::module_& m, PyMethodDef& definition);

// Calls f and returns None; turns C++ exceptions into Python's, as pybind11 does for its own functions.
template <class F>
PyObject* guarded(const F& f) {
  try {
    f();
    Py_RETURN_NONE;
  } catch (pybind11::error_already_set& e) {
    e.restore();
  } catch (const pybind11::builtin_exception& e) {
    e.set_error();
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, e.what());  // see translate_memory_error
  }
  return nullptr;
}

}  // namespace nos::bind
