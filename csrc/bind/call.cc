#include "call.h"

#include "arguments.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Returns the Program in a pybind11 object, in a tenth of the time of py::cast, which looks the type up twice. Nothing
// else here uses pybind11's private parts. What they give is compared with py::cast's result before it is relied on.
static_assert(PYBIND11_VERSION_MAJOR == 3, "nos_ext builds with pybind11 3: see how this version lays out an instance");
const Program* value_of(PyObject* source) {
  const auto* instance = reinterpret_cast<const py::detail::instance*>(source);
  return instance->simple_layout ? static_cast<const Program*>(instance->simple_value_holder[0]) : nullptr;
}

}  // namespace

Staged& staged() {
  static Staged one;
  return one;
}

const Program& read_program(std::string_view name, PyObject* source, py::object& keep) {
  if (PyBytes_Check(source) || PyByteArray_Check(source) || PyMemoryView_Check(source)) {
    // bytecode -> Program. Never freed, as the interpreter may be gone at exit.
    static py::dict& known = *new py::dict();
    auto key = py::reinterpret_steal<py::object>(PyBytes_FromObject(source));
    if (!key) throw py::error_already_set();
    if (!known.contains(key)) {
      if (known.size() >= 256) known.clear();
      known[key] = py::type::of<Program>()(key);
    }
    keep = known[key];
    source = keep.ptr();
  }
  static PyTypeObject* known = nullptr;  // a type for whose instances value_of has been seen to read correctly
  if (Py_TYPE(source) == known)
    if (const Program* program = value_of(source)) return *program;
  if (Py_TYPE(source) == staged().type)
    throw py::type_error(std::string(name) + " is rule '" + std::string(py::str(py::handle(source).attr("name"))) +
                         "', which has orthogonalize: matrix products stand between its stages; use "
                         "nos_ext.apply_rule, or nos_ext.optim.RuleOptimizer with capturable=False");
  if (!py::isinstance<Program>(source))
    throw py::type_error(
        wrong_type(name, source, "a nos_ext.Program or its .bytecode (nos_ext.compile_rule makes one from text)"));
  if (!py::detail::is_holder_constructed(source))
    throw py::type_error(std::string(name) + " is a Program that was never made; use nos_ext.compile_rule");
  const auto& program = py::cast<const Program&>(py::handle(source));
  if (value_of(source) == &program && Py_TYPE(source) != known) {
    Py_INCREF(Py_TYPE(source));  // a remembered type must not be freed and its address used again
    Py_XDECREF(known);
    known = Py_TYPE(source);
  }
  return program;
}

void add_function(py::module_& m, PyMethodDef& definition) {
  m.attr(definition.ml_name) =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(&definition, nullptr, py::str("nos_ext._C").release().ptr()));
}

}  // namespace nos::bind
