#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>

#include "../backend/backend.h"
#include "../ops/float_environment.h"
#include "../ops/philox.h"
#include "../program/bytecode.h"
#include "bind.h"
#include "instances.h"
#include "torch_tensor.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

py::dict build_info() {
  py::dict out;
  out["version"] = NOS_VERSION;
  out["bytecode_version"] = bytecode::kWithReductions;
  out["compiler"] = "g++ " __VERSION__;
  for (const auto& [backend, facts] : facts_of_backends()) {
    py::dict about;
    for (const auto& [name, value] : facts) about[py::str(name)] = value;
    out[py::str(backend)] = about;
  }
  out["torch_tensors"] = TorchTensor::status();
  return out;
}

// A FloatEnvironment for a `with` block of Python code.
class FloatBlock {
 public:
  void enter() {
    if (held_) throw std::logic_error("this FloatEnvironment has been entered already; make one for each block");
    held_.emplace();
  }
  void exit() { held_.reset(); }

 private:
  std::optional<FloatEnvironment> held_;
};

}  // namespace

void bind_info(py::module_& m) {
  py::class_<FloatBlock> block(m, "FloatEnvironment", py::custom_type_setup(checked_new),
                               "Rounding to nearest and subnormals for a `with` block of this thread.");
  def_init(block, [] { return std::make_unique<FloatBlock>(); });
  block.def("__enter__", &FloatBlock::enter).def("__exit__", [](FloatBlock& self, const py::args&) { self.exit(); });
  m.attr("__version__") = NOS_VERSION;
  m.def("build_info", &build_info, "Versions, instruction sets, and what this build can run on.");
  m.def(
      "philox",
      [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
        const philox::Words w = philox::philox4x32_10(c0, c1, c2, c3, k0, k1);
        return py::make_tuple(w.w[0], w.w[1], w.w[2], w.w[3]);
      },
      py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("k0"), py::arg("k1"),
      "Philox4x32-10: the four words of one counter and key.");
}

}  // namespace nos::bind
