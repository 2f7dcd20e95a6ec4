#include "call.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Below this much work (cpu::Prepared::work, nanoseconds of one thread) handing the GIL over and back costs more than
// it gives.
constexpr int64_t kReleaseGil = 6'000;

}  // namespace

const Program& read_program(std::string_view name, PyObject* source, py::object& keep) {
  if (PyBytes_Check(source) || PyByteArray_Check(source) || PyMemoryView_Check(source)) {
    static py::dict& known = *new py::dict();  // bytecode -> Program; leaked, as the interpreter may be gone at exit
    auto key = py::reinterpret_steal<py::object>(PyBytes_FromObject(source));
    if (!key) throw py::error_already_set();
    if (!known.contains(key)) {
      if (known.size() >= 256) known.clear();
      known[key] = py::type::of<Program>()(key);
    }
    keep = known[key];
    source = keep.ptr();
  }
  // pybind11 looks the type up twice; its instances of a type once seen are read directly
  static PyTypeObject* known = nullptr;
  auto* instance = reinterpret_cast<py::detail::instance*>(source);
  if (Py_TYPE(source) == known && instance->simple_layout && instance->simple_value_holder[0])
    return *static_cast<const Program*>(instance->simple_value_holder[0]);
  if (!py::isinstance<Program>(source))
    throw py::type_error(std::string(name) + " is a " +
                         std::string(py::str(py::type::handle_of(source).attr("__name__"))) +
                         "; pass a nos_ext.Program or its .bytecode (nos_ext.compile_rule makes one from text)");
  const auto& program = py::cast<const Program&>(py::handle(source));
  Py_INCREF(Py_TYPE(source));  // a remembered type must not be freed and its address used again
  Py_XDECREF(known);
  known = Py_TYPE(source);
  return program;
}

void run_job(const cpu::Prepared& prepared, const cpu::StepArgs& args) {
  if (prepared.work > kReleaseGil) {
    const py::gil_scoped_release release;
    cpu::run(prepared, args);
  } else {
    cpu::run(prepared, args);
  }
}

void add_function(py::module_& m, PyMethodDef& definition) {
  m.attr(definition.ml_name) =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(&definition, nullptr, py::str("nos_ext._C").release().ptr()));
}

}  // namespace nos::bind
