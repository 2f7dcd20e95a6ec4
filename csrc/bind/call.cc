#include "call.h"

#include <cmath>

#include "arguments.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Below this much work (cpu::Prepared::work, nanoseconds of one thread) handing the GIL over and back costs more than
// it gives.
constexpr int64_t kReleaseGil = 6'000;

}  // namespace

const Program& read_program(const std::string& name, PyObject* source, py::object& keep) {
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
  if (!py::isinstance<Program>(source))
    throw py::type_error(name + " is a " + std::string(py::str(py::type::handle_of(source).attr("__name__"))) +
                         "; pass a nos_ext.Program or its .bytecode (nos_ext.compile_rule makes one from text)");
  return py::cast<const Program&>(py::handle(source));
}

bool StepScalars::read(std::string_view name, PyObject* value) {
  if (name == "step") {
    step = read_integer(name, value, 1, UINT32_MAX);
  } else if (name == "tensor_index") {
    tensor_index = read_integer(name, value, 0, uint64_t{1} << 31);
  } else if (name == "maximize") {
    const int truth = PyObject_IsTrue(value);
    if (truth < 0) throw py::error_already_set();
    sign = truth ? -1 : 1;
  } else if (name == "grad_scale") {
    if (value == Py_None) return true;
    scale = read_number(name, value);
    if (scale == 0 || std::isnan(scale))
      throw std::invalid_argument("grad_scale is " + repr(value) + "; pass a number that is not 0");
  } else {
    return false;
  }
  return true;
}

void run_job(const cpu::Prepared& prepared, const cpu::StepArgs& args) {
  if (prepared.work > kReleaseGil) {
    const py::gil_scoped_release release;
    cpu::run(prepared, args);
  } else {
    cpu::run(prepared, args);
  }
}

void mark_modified(const TensorLists& tensors) {
  static PyObject* increment_version = nullptr;
  static PyTypeObject* tensor_type = nullptr;
  const auto &params = tensors.lists()[0].tensors, &grads = tensors.lists()[1].tensors;
  py::object written = py::none();
  for (size_t i = 0; i < params.size(); ++i) {
    PyObject* item = tensors.objects()[i];
    if (!grads[i].present) continue;
    if (Py_TYPE(item) != tensor_type) {
      if (!PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(item)), "_version")) continue;
      Py_INCREF(Py_TYPE(item));  // a remembered type must not be freed and its address used again
      Py_XDECREF(tensor_type);
      tensor_type = Py_TYPE(item);
    }
    if (written.is_none()) written = py::list();
    PyList_Append(written.ptr(), item);
  }
  if (written.is_none()) return;
  if (!increment_version)
    increment_version =
        py::object(py::module_::import("torch.autograd.graph").attr("increment_version")).release().ptr();
  const auto done = py::reinterpret_steal<py::object>(PyObject_CallOneArg(increment_version, written.ptr()));
  if (!done) throw py::error_already_set();
}

void add_function(py::module_& m, PyMethodDef& definition) {
  m.attr(definition.ml_name) =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(&definition, nullptr, py::str("nos_ext._C").release().ptr()));
}

}  // namespace nos::bind
