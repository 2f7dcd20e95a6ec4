// Binds the compiled tier of the CUDA back-end: its settings, and what tests, benches and curious users look into.
#include <pybind11/stl.h>

#include "../backend/cuda/jit/nvrtc.h"
#include "../backend/cuda/jit/promote.h"
#include "../backend/cuda/jit/source.h"
#include "bind.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

namespace jit = cuda::jit;

// `names` has the name of a dtype for each slot.
std::array<DType, kMaxSlots> read_dtypes(const Program& program, const std::vector<std::string>& names) {
  const size_t slots = bytecode::kFirstState + program.states().size();
  if (names.size() != slots)
    throw std::invalid_argument("dtypes has " + std::to_string(names.size()) + " names; rule '" + program.name() +
                                "' has " + std::to_string(slots) + " slots: p, g and its states");
  std::array<DType, kMaxSlots> out{};
  for (size_t s = 0; s < slots; ++s) {
    bool known = false;
    for (const DType t : {DType::f32, DType::f64, DType::bf16, DType::f16})
      if (nos::name_of(t) == names[s]) out[s] = t, known = true;
    if (!known) throw std::invalid_argument("dtypes[" + std::to_string(s) + "] is '" + names[s] + "'");
  }
  return out;
}

}  // namespace

void bind_jit(py::module_& m) {
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    const py::gil_scoped_release release;
    jit::finish_builds();
  }));
  m.def(
      "set_jit",
      [](const std::string& mode, std::optional<uint32_t> after) {
        const jit::Mode next = jit::read_mode("mode", mode);
        const std::string old = jit::name_of(jit::mode());
        jit::set_mode(next);
        jit::set_promote_after(after.value_or(jit::kPromoteAfter));
        return old;
      },
      py::arg("mode"), py::kw_only(), py::arg("after") = py::none(), "See nos_ext.set_jit.");
  m.def("set_nvrtc_folders", &jit::set_nvrtc_folders, py::arg("folders"),
        "Folders that may hold libnvrtc; asked after the libraries that the process has loaded.");
  m.def("jit_status", &jit::status, "The NVRTC in use, or 'off: ' and why.");
  m.def(
      "cuda_source",
      [](const Program& program, const std::vector<std::string>& dtypes, bool prelude) {
        const std::string text = jit::source_of(program, read_dtypes(program, dtypes));
        if (text.empty()) throw std::invalid_argument("dtypes mixes float64 with others");
        return (prelude ? std::string(jit::kPrelude) : std::string()) + text;
      },
      py::arg("program"), py::arg("dtypes"), py::kw_only(), py::arg("prelude") = true,
      "CUDA C++ of the compiled tier for slots (p, g, states) of these dtypes.");
  m.def(
      "nvrtc_compile",
      [](const std::string& source, int arch) {
        jit::Nvrtc::Cubin out;
        {
          const py::gil_scoped_release release;
          out = jit::Nvrtc::get().compile(source, arch);
        }
        return std::make_pair(py::bytes(out.bytes), out.log);
      },
      py::arg("source"), py::arg("arch"), "Machine code of sm_<arch> and the assembler's log.");
  m.def(
      "jit_build",
      [](const Program& program, const std::vector<std::string>& dtypes, int arch,
         const std::string& mode) -> py::object {
        const auto list = read_dtypes(program, dtypes);
        const jit::Mode chosen = jit::read_mode("mode", mode);
        jit::Build* build;
        {
          const py::gil_scoped_release release;
          build = jit::promoted(program, list, arch, chosen);
        }
        if (!build) return py::none();
        return py::make_tuple(py::bytes(build->cubin()), build->from_disk());
      },
      py::arg("program"), py::arg("dtypes"), py::arg("arch"), py::kw_only(), py::arg("mode") = "always",
      "What a launch on sm_<arch> would use: (machine code, whether from disk), or None for the interpreter.");
}

}  // namespace nos::bind
