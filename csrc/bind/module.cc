#include "bind.h"

namespace {

// pybind11 throws its own std::runtime_error where Python cannot make a list or a tuple. Python's MemoryError is
// already set by then, and is the one to report.
void translate_memory_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::runtime_error&) {
    if (!PyErr_Occurred()) throw;
  }
}

}  // namespace

// Fills the module. The function below checks the interpreter first, and the name nos_ext._C comes from the importer.
PYBIND11_MODULE(nos_ext_core, m) {
  pybind11::register_local_exception_translator(&translate_memory_error);
  m.doc() = "Compiled core of nos_ext: programs, the plan and the back-ends.";
  nos::bind::bind_program(m);
  nos::bind::bind_apply(m);
  nos::bind::bind_population(m);
  nos::bind::bind_stepper(m);
  nos::bind::bind_captured(m);
  nos::bind::bind_info(m);
  nos::bind::bind_jit(m);
  nos::bind::bind_child(m);
}

// What the module keeps for its whole life (types, interned names, programs) belongs to one interpreter, so it refuses
// to be imported into another one. pybind11's own initialisation would wait there for ever, so the check comes before
// it.
extern "C" PYBIND11_EXPORT PyObject* PyInit__C() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit_nos_ext_core();
  PyErr_SetString(
      PyExc_ImportError,
      "nos_ext._C works in the main interpreter only, and this is a subinterpreter; use threads or processes");
  return nullptr;
}
