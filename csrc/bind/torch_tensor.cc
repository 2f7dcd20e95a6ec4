#include "torch_tensor.h"

#include <dlfcn.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "arguments.h"
#include "tensor_type.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Sets `function` to the one with this name, which is searched in the libraries that torch's module has loaded.
template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

uintptr_t address(const py::object& number) { return static_cast<uintptr_t>(number.cast<uint64_t>()); }

}  // namespace

bool TorchTensor::find_functions(const py::module_& torch) {
  const std::string path = py::str(torch.attr("_C").attr("__file__"));
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);  // never closed, as torch never is
  int32_t (*dense)() = nullptr;
  if (!library || !find(library, "aoti_torch_get_data_ptr", data_ptr_) ||
      !find(library, "aoti_torch_get_sizes", sizes_) || !find(library, "aoti_torch_get_layout", layout_) ||
      !find(library, "aoti_torch_layout_strided", dense) ||
      !find(library, "aoti_torch_get_storage_size", storage_size_) ||
      !find(library, "_ZN2at6native6is_negERKNS_6TensorE", is_negated_))
    return false;
  find(library, "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE", count_write_);
  dense_ = dense();
  return true;
}

// Finds where the Python object points to the C++ object, and where the C++ object keeps the shape.
bool TorchTensor::find_body(const py::handle& tensor) {
  const uintptr_t body = address(tensor.attr("_cdata"));
  const auto size = static_cast<size_t>(Py_TYPE(tensor.ptr())->tp_basicsize);
  for (handle_at_ = sizeof(PyObject); handle_at_ + sizeof(void*) <= size; handle_at_ += sizeof(void*))
    if (reinterpret_cast<uintptr_t>(body_of(handle_of(tensor.ptr()))) == body) break;
  if (handle_at_ + sizeof(void*) > size) return false;
  int64_t* sizes = nullptr;
  if (sizes_(handle_of(tensor.ptr()), &sizes) != 0) return false;
  constexpr uintptr_t kMostBytes = 256;  // such an object has no more bytes
  const uintptr_t at = reinterpret_cast<uintptr_t>(sizes) - body;
  if (at < 2 * sizeof(void*) || at > kMostBytes - (kType + 1) * sizeof(int64_t)) return false;
  sizes_at_ = at;
  return true;
}

// Whether what is read here agrees with what Python says.
bool TorchTensor::reads_right(const py::handle& tensor) const {
  const Handle handle = handle_of(tensor.ptr());
  const char* body = body_of(handle);
  if (reinterpret_cast<uintptr_t>(body) != address(tensor.attr("_cdata"))) return false;
  const auto ndim = tensor.attr("dim")().cast<int32_t>();
  const int64_t* sizes = sizes_of(body);
  if (sizes[-1] != ndim) return false;
  if (is_negated_(handle) != tensor.attr("is_neg")().cast<bool>()) return false;
  if (ndim > kMostDims) return true;
  if (offset_of(body) != tensor.attr("storage_offset")().cast<int64_t>()) return false;
  auto dims = tensor.attr("shape").cast<std::vector<int64_t>>();
  for (const int64_t stride : tensor.attr("stride")().cast<std::vector<int64_t>>()) dims.push_back(stride);
  if (!fits(body, type_of(sizes), ndim, dims.data())) return false;
  void* data = nullptr;
  return data_ptr_(handle, &data) == 0 && reinterpret_cast<uintptr_t>(data) == address(tensor.attr("data_ptr")());
}

const char* TorchTensor::learn(const py::module_& torch) {
  if (!find_functions(torch)) return "a function is not there";
  const auto make = [&](const char* dtype, const py::tuple& shape, const char* device = "cpu") -> py::object {
    return torch.attr("empty")(shape, py::arg("dtype") = torch.attr(dtype), py::arg("device") = device);
  };
  const auto type = [&](const py::object& tensor) { return type_of(sizes_of(body_of(handle_of(tensor.ptr())))); };
  const py::object first = make("float32", py::make_tuple(5, 7));
  if (!find_body(first) || !reads_right(first)) return "a tensor is laid out otherwise";

  // Every dtype, the engine's and others, must have a number of its own whatever the shape, and another one on another
  // device.
  std::set<uint64_t> types;
  const char* const dtypes[] = {"float32", "float64", "bfloat16", "float16", "int32", "int16", "bool"};
  for (const char* dtype : dtypes) {
    const py::object small = make(dtype, py::make_tuple(3)), large = make(dtype, py::make_tuple(2, 3, 4, 5, 6));
    const py::object scalar = make(dtype, py::tuple()), longer = make(dtype, py::make_tuple(1, 2, 1, 2, 1, 2));
    for (const py::object& t : {small, large, scalar, longer})
      if (!reads_right(t)) return "shape, strides or address are kept otherwise";
    if (type(small) != type(large) || type(small) != type(scalar)) return "the dtype is kept otherwise";
    types.insert(type(small));
    types.insert(type(make(dtype, py::make_tuple(3), "meta")));
  }
  if (types.size() != 2 * std::size(dtypes)) return "dtype or device are kept otherwise";

  // Changes in place must show in the same places.
  const py::object changing = make("float32", py::make_tuple(3, 4));
  const char* const body = body_of(handle_of(changing.ptr()));
  const auto follows = [&] { return body_of(handle_of(changing.ptr())) == body && reads_right(changing); };
  changing.attr("t_")();
  bool follow = follows();
  changing.attr("unsqueeze_")(0);
  follow &= follows();
  changing.attr("data") = make("float16", py::make_tuple(6));
  follow &= follows() && type(changing) == type(make("float16", py::make_tuple(1)));
  changing.attr("resize_")(1, 1, 1, 1, 1, 2);
  follow &= follows();
  changing.attr("resize_")(4, 2);
  if (!follow || !follows()) return "changes in place are kept elsewhere";
  if (!reads_right(torch.attr("_neg_view")(first))) return "a negated view does not say so";

  const py::object its = make("float32", py::make_tuple(2));
  const auto version = its.attr("_version").cast<int64_t>();
  if (count_write_ && (!count_write(its.ptr()) || its.attr("_version").cast<int64_t>() != version + 1))
    count_write_ = nullptr;
  return nullptr;
}

namespace {

// What has been learnt of this process's torch. Guarded by the GIL, and written once.
struct Learnt {
  bool done = false;
  std::string problem;  // empty if the short way is open
};
Learnt g_learnt;

}  // namespace

TorchTensor TorchTensor::g_way;

void TorchTensor::experiment() {
  TorchTensor learnt;
  std::string problem;
  try {
    if (const char* found = learnt.learn(py::module_::import("torch"))) problem = found;
  } catch (py::error_already_set& error) {
    problem = first_line(error);
  } catch (const std::exception& error) {
    problem = error.what();
  }
  if (g_learnt.done) return;  // another thread was faster
  g_way = learnt;
  g_learnt = {true, problem};
}

const TorchTensor* TorchTensor::of(PyTypeObject* type) {
  const py::dict modules = py::module_::import("sys").attr("modules");
  const auto* object = reinterpret_cast<PyObject*>(type);
  const auto is = [&](const char* module, const char* name) {
    return modules.contains(module) && py::getattr(modules[module], name, py::none()).ptr() == object;
  };
  if (!is("torch", "Tensor") && !is("torch.nn.parameter", "Parameter")) return nullptr;
  if (!g_learnt.done) {
    // What changes torch's answers (inference mode, transforms of torch.func, Python's modes and default device)
    // belongs to a thread, and a new thread has none of it.
    const py::gil_scoped_release release;
    try {
      std::thread([] {
        const py::gil_scoped_acquire acquire;
        experiment();
      }).join();
    } catch (const std::system_error&) {
      return nullptr;  // there is no thread to be had
    }
  }
  return g_learnt.problem.empty() ? &g_way : nullptr;
}

std::string TorchTensor::status() {
  if (!g_learnt.done) return "not seen yet";
  if (!g_learnt.problem.empty()) return "exported at every call: " + g_learnt.problem;
  return std::string("compared in place") + (g_way.count_write_ ? "" : ", writes counted through Python");
}

TorchTensor::Facts TorchTensor::facts(PyObject* tensor, const void* data, int32_t itemsize, int32_t ndim,
                                      const int64_t* dims) const {
  if (ndim > kMostDims) return {};
  const Handle handle = handle_of(tensor);
  const char* body = body_of(handle);
  void* address;
  if (!body || data_ptr_(handle, &address) != 0 || address != data) return {};
  const uint64_t type = type_of(sizes_of(body));
  if (!fits(body, type, ndim, dims)) return {};
  int64_t last = 0;
  for (int32_t d = 0; d < ndim; ++d) last += (dims[d] - 1) * dims[ndim + d];
  return {data, true, type, ndim, itemsize, last + 1};
}

}  // namespace nos::bind
