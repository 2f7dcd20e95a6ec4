#include "tensor_type.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

#include "arguments.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

TensorType g_known[16];  // more than one, as some models have parameters of several classes

// Returns " (torch 2.13.0)" for messages about the framework of a type, and nothing when it does not tell its version.
std::string version_of(PyTypeObject* type) {
  const py::object name = py::getattr(reinterpret_cast<PyObject*>(type), "__module__", py::none());
  const std::string root = py::isinstance<py::str>(name) ? std::string(py::str(name)) : std::string();
  const py::dict modules = py::module_::import("sys").attr("modules");
  const py::str package(root.substr(0, root.find('.')));
  if (!modules.contains(package)) return {};
  const py::object version = py::getattr(modules[package], "__version__", py::none());
  return " (" + std::string(package) + " " + std::string(py::str(version)) + ")";
}

// A table of a later major version may point to an older one, which this build can read.
const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  const py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
  if (capsule.is_none()) return nullptr;
  auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  const uint32_t newest = api->header.version.major;
  while (api && api->header.version.major > DLPACK_MAJOR_VERSION)
    api = reinterpret_cast<const DLPackExchangeAPI*>(api->header.prev_api);
  if (!api || api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync)
    throw std::runtime_error("tensors of " + std::string(type->tp_name) + version_of(type) +
                             " come through DLPack version " + std::to_string(newest) +
                             ", and this build of nos_ext reads version " + std::to_string(DLPACK_MAJOR_VERSION) +
                             "; install a torch from 2.10 on that has it, or a newer nos_ext");
  return api;
}

py::object call(PyObject* object, PyObject* method) {
  return py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(object, method));
}

// Returns the function of torch._C, which the public one calls after checking its argument; or else the public one.
PyObject* increment_function() {
  static PyObject* found = nullptr;
  if (found) return found;
  py::object f = py::getattr(py::module_::import("torch._C"), "_increment_version", py::none());
  if (f.is_none()) f = py::getattr(py::module_::import("torch.autograd.graph"), "increment_version", py::none());
  if (f.is_none())
    throw std::runtime_error(
        "torch " + std::string(py::str(py::module_::import("torch").attr("__version__"))) +
        " has no torch.autograd.graph.increment_version, which torch 2.10 to 2.14 have; install one of these");
  return found = f.release().ptr();
}

// By DeviceKind.
constexpr DLDeviceType kDLPack[] = {
#define NOS_DEVICE(name, dlpack) dlpack,
#include "../plan/devices.def"
#undef NOS_DEVICE
};

const TensorType* known_type(PyTypeObject* type) {
  for (const TensorType& k : g_known)
    if (k.type == type) return &k;
  return nullptr;
}

}  // namespace

const TensorType* tensor_type(PyTypeObject* type) {
  if (const TensorType* known = known_type(type)) return known;
  // A type made in C, such as NumPy's array, which is no tensor type and cannot become one.
  static const PyTypeObject* other = nullptr;
  if (type == other) return nullptr;
  const DLPackExchangeAPI* api = exchange_api(type);
  if (!api) {
    if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) other = type;
    return nullptr;
  }
  const auto has = [type](const char* name) {
    return PyObject_HasAttrString(reinterpret_cast<PyObject*>(type), name) == 1;
  };
  const TensorType made{type, api, has("_version"), has("untyped_storage"), TorchTensor::of(type), has("trigger_wait")};
  if (made.versioned) increment_function();  // if it is missing, that must be found before the first write
  if (const TensorType* known = known_type(type)) return known;  // Python code that ran meanwhile has asked, too
  Py_INCREF(type);  // keeps the type alive, so that its address is not reused
  static unsigned next = 0;
  TensorType& slot = g_known[next++ % std::size(g_known)];
  PyTypeObject* forgotten = slot.type;
  slot = made;
  Py_XDECREF(forgotten);
  return &slot;
}

std::optional<Device> device_of(DLDevice device) {
  if (device.device_type == kDLCPU || device.device_type == kDLCUDAHost) return Device{};
  const auto* found = std::ranges::find(kDLPack, device.device_type);
  if (found == std::end(kDLPack)) return {};
  return Device{static_cast<DeviceKind>(found - kDLPack), device.device_id};
}

void* current_stream(PyObject* tensor, Device device) {
  const TensorType* type = tensor_type(Py_TYPE(tensor));
  void* stream = nullptr;
  const DLDeviceType kind = kDLPack[static_cast<size_t>(device.kind)];
  if (!type || !type->api->current_work_stream || type->api->current_work_stream(kind, device.number, &stream) != 0) {
    if (PyErr_Occurred()) throw py::error_already_set();
    throw std::runtime_error("the framework of " + std::string(Py_TYPE(tensor)->tp_name) + version_of(Py_TYPE(tensor)) +
                             " does not tell its current stream; use torch >= 2.10");
  }
  return stream;
}

py::object arrived(PyObject* tensor) {
  const py::dict modules = py::module_::import("sys").attr("modules");
  const py::str name("torch.distributed._functional_collectives");
  if (!modules.contains(name)) return {};  // without the module nobody can have made one
  const py::object type = py::getattr(modules[name], "AsyncCollectiveTensor", py::none());
  if (type.is_none() || !py::isinstance(tensor, type)) return {};
  if (!py::hasattr(tensor, "wait"))
    throw std::runtime_error("AsyncCollectiveTensor" + version_of(Py_TYPE(tensor)) +
                             " has no wait() any more; wait for the collective before the call");
  return py::handle(tensor).attr("wait")();
}

py::object storage_object(PyObject* tensor) {
  static PyObject* const untyped_storage = interned("untyped_storage");
  return call(tensor, untyped_storage);
}

Storage storage_of(const TensorType& type, PyObject* tensor) {
  static PyObject* const data_ptr = interned("data_ptr");
  static PyObject* const nbytes = interned("nbytes");
  Storage out{{}, 0, 0};
  if (!type.has_storage) return out;
  out.object = storage_object(tensor);
  const py::object begin = out.object ? call(out.object.ptr(), data_ptr) : py::object();
  const py::object bytes = begin ? call(out.object.ptr(), nbytes) : py::object();
  if (bytes) {
    out.begin = static_cast<uintptr_t>(PyLong_AsUnsignedLongLong(begin.ptr()));
    out.bytes = static_cast<size_t>(PyLong_AsUnsignedLongLong(bytes.ptr()));
  }
  if (PyErr_Occurred()) {  // wraps other tensors and has no storage of its own
    forget_error();
    out.object = {};
  }
  return out;
}

void increment_versions(const py::list& tensors) {
  const auto increment = [](const py::handle& given) {
    return py::reinterpret_steal<py::object>(PyObject_CallOneArg(increment_function(), given.ptr()));
  };
  if (increment(tensors)) return;
  // Torch refuses all where one is an inference tensor, which has no counter and of which no graph keeps anything.
  for (const py::handle tensor : tensors) {
    forget_error();
    py::list one;
    one.append(tensor);
    increment(one);
  }
  if (PyErr_Occurred()) forget_error();
}

std::string first_line(const py::error_already_set& error) {
  const std::string text = py::str(error.value());
  return text.substr(0, text.find('\n'));
}

}  // namespace nos::bind
