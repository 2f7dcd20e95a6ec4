#include "bind.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled core of nos_ext: programs, the plan and the back-ends.";
  nos::bind::bind_program(m);
  nos::bind::bind_apply(m);
  nos::bind::bind_population(m);
  nos::bind::bind_stepper(m);
  nos::bind::bind_captured(m);
  nos::bind::bind_info(m);
  nos::bind::bind_jit(m);
}
