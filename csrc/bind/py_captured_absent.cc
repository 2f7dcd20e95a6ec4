// Binds CapturedStep in a build without CUDA.
#include <stdexcept>

#include "bind.h"

namespace py = pybind11;

namespace nos::bind {

void bind_captured(py::module_& m) {
  m.def(
      "CapturedStep",
      [](const py::args&, const py::kwargs&) {
        throw std::runtime_error("this build has no CUDA back-end (" NOS_CUDA_STATUS "), so no captured steps");
      },
      "See nos_ext.CapturedStep.");
}

}  // namespace nos::bind
