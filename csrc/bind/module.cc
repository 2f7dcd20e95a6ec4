#include "bind.h"

namespace {

// pybind11 throws its own std::runtime_error where Python cannot make a list or a tuple; Python's MemoryError is set
// already and is the one to report.
void translate_memory_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::runtime_error&) {
    if (!PyErr_Occurred()) throw;
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  pybind11::register_local_exception_translator(&translate_memory_error);
  m.doc() = "Compiled core of nos_ext: programs, the plan and the back-ends.";
  nos::bind::bind_program(m);
  nos::bind::bind_apply(m);
  nos::bind::bind_population(m);
  nos::bind::bind_stepper(m);
  nos::bind::bind_captured(m);
  nos::bind::bind_info(m);
  nos::bind::bind_jit(m);
}
