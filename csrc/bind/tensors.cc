#include "tensors.h"

#include <pybind11/numpy.h>

#include "dlpack.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

std::string type_name(py::handle h) { return py::str(py::type::handle_of(h).attr("__name__")); }

// list[index] for messages; the text is made only when there is something to say.
struct Where {
  const std::string& list;
  size_t index;
  operator std::string() const { return list + "[" + std::to_string(index) + "]"; }
};
std::string operator+(const Where& where, const char* text) { return std::string(where) + text; }

[[noreturn]] void bad_dtype(Where where, const std::string& dtype) {
  throw TensorError(where + " is " + dtype + "; supported are float32, float64, bfloat16 and float16" +
                    (dtype.rfind("complex", 0) == 0 ? " (pass torch.view_as_real of a complex tensor)" : ""));
}

// The exchange table of a tensor type, or null. Torch >= 2.10 has one on torch.Tensor, which subclasses inherit.
const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  static PyTypeObject* known_type = nullptr;  // the last type that had one; the GIL guards the pair
  static const DLPackExchangeAPI* known_api = nullptr;
  if (type == known_type) return known_api;
  const py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
  if (capsule.is_none()) return nullptr;
  auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  while (api && api->header.version.major > DLPACK_MAJOR_VERSION)
    api = reinterpret_cast<const DLPackExchangeAPI*>(api->header.prev_api);
  if (!api || api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync)
    return nullptr;
  Py_INCREF(type);  // a remembered type must not be freed and its address used again
  Py_XDECREF(known_type);
  known_type = type;
  known_api = api;
  return api;
}

DType dlpack_dtype(Where where, DLDataType t) {
  if (t.lanes == 1) {
    if (t.code == kDLFloat && t.bits == 32) return DType::f32;
    if (t.code == kDLFloat && t.bits == 64) return DType::f64;
    if (t.code == kDLFloat && t.bits == 16) return DType::f16;
    if (t.code == kDLBfloat && t.bits == 16) return DType::bf16;
  }
  static constexpr const char* kKinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string bits = t.code == kDLBool ? "" : std::to_string(t.bits);
  bad_dtype(where, t.code < std::size(kKinds) ? kKinds[t.code] + bits : "an unknown " + bits + "-bit type");
}

TensorRef from_dlpack(Where where, PyObject* tensor, const DLPackExchangeAPI* api) {
  DLTensor d;
  if (api->dltensor_from_py_object_no_sync(tensor, &d) != 0) {
    const py::error_already_set reason;
    throw TensorError(where + " has no memory to work on (a sparse or meta tensor?); pass a dense tensor [" +
                      std::string(py::str(reason.value())) + "]");
  }
  TensorRef out;
  out.dtype = dlpack_dtype(where, d.dtype);
  out.data = static_cast<char*>(d.data) + d.byte_offset;
  if (d.device.device_type == kDLCUDA) {
    out.on_cuda = true;
    out.device = d.device.device_id;
  } else if (d.device.device_type != kDLCPU && d.device.device_type != kDLCUDAHost) {
    throw TensorError(where + " is on device " + std::string(py::str(py::handle(tensor).attr("device"))) +
                      "; supported are the CPU and CUDA devices");
  }
  out.shape = d.shape;
  out.strides = d.strides;
  out.ndim = d.ndim;
  out.numel = 1;
  for (int i = 0; i < d.ndim; ++i) out.numel *= d.shape[i];
  return out;
}

TensorRef from_numpy(Where where, const py::array& a, Access access, std::vector<int64_t>& strides) {
  TensorRef out;
  const py::dtype t = a.dtype();
  const bool floating = t.kind() == 'f' && t.byteorder() != '>';
  if (floating && t.itemsize() == 4)
    out.dtype = DType::f32;
  else if (floating && t.itemsize() == 8)
    out.dtype = DType::f64;
  else if (floating && t.itemsize() == 2)
    out.dtype = DType::f16;
  else
    bad_dtype(where, py::str(t.attr("str")));
  if (access == Access::write && !a.writeable())
    throw TensorError(where + " is a read-only array; pass a writable one, for example a copy");
  out.data = const_cast<void*>(a.data());
  if (reinterpret_cast<uintptr_t>(out.data) % static_cast<uintptr_t>(t.itemsize()) != 0)
    throw TensorError(where + " does not start at a multiple of its item size; pass a copy");
  for (py::ssize_t d = 0; d < a.ndim(); ++d) {
    if (a.shape(d) > 1 && a.strides(d) % t.itemsize() != 0)
      throw TensorError(where + " has strides that are no multiple of its item size; pass a copy");
    strides.push_back(a.strides(d) / t.itemsize());
  }
  static_assert(sizeof(py::ssize_t) == sizeof(int64_t));
  out.shape = reinterpret_cast<const int64_t*>(a.shape());
  out.strides = strides.data();
  out.ndim = static_cast<int32_t>(a.ndim());
  out.numel = a.size();
  return out;
}

}  // namespace

void TensorLists::add(std::string name, py::handle sequence, Access access) {
  PyObject* given = sequence.ptr();
  const bool plain = PyList_Check(given) || PyTuple_Check(given);  // spares the rule of looking up attributes
  if (!plain && (exchange_api(Py_TYPE(given)) || py::isinstance<py::array>(sequence) || PyUnicode_Check(given) ||
                 PyBytes_Check(given) || PyDict_Check(given)))
    throw py::type_error(name + " is a " + type_name(sequence) + "; pass a list of tensors");
  auto fast = py::reinterpret_steal<py::object>(PySequence_Fast(sequence.ptr(), ""));
  if (!fast) {
    PyErr_Clear();
    throw py::type_error(name + " is a " + type_name(sequence) + "; pass a list of tensors");
  }
  const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(fast.ptr()));
  lists_.push_back({std::move(name), std::vector<TensorRef>(n)});
  TensorList& list = lists_.back();
  for (size_t i = 0; i < n; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(fast.ptr(), static_cast<py::ssize_t>(i));
    const Where where{list.name, i};
    objects_.push_back(item);
    if (item == Py_None && access == Access::read_or_none) {
      list.tensors[i].present = false;
    } else if (const DLPackExchangeAPI* api = exchange_api(Py_TYPE(item))) {
      list.tensors[i] = from_dlpack(where, item, api);
    } else if (py::isinstance<py::array>(item)) {
      array_strides_.emplace_back();
      list.tensors[i] = from_numpy(where, py::reinterpret_borrow<py::array>(item), access, array_strides_.back());
    } else {
      throw py::type_error(where + " is a " + type_name(item) +
                           "; pass a torch.Tensor (torch >= 2.10) or a numpy.ndarray" +
                           (access == Access::read_or_none ? ", or None to skip the parameter" : ""));
    }
  }
  sequences_.push_back(std::move(fast));
}

// The exchange API exports the raw memory of a lazily negated view. (A conjugated one is complex, which has no dtype
// here.)
void TensorLists::check_negation(const std::vector<PyObject*>& known) const {
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  size_t number = 0;
  for (const TensorList& list : lists_) {
    for (size_t i = 0; i < list.tensors.size(); ++i, ++number) {
      PyObject* item = objects_[number];
      if (item == Py_None || (number < known.size() && known[number] == item) || !exchange_api(Py_TYPE(item))) continue;
      const auto negated = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(item, is_neg));
      if (!negated) {
        PyErr_Clear();  // not torch: such a type has no lazy negation
      } else if (negated.ptr() == Py_True) {
        const std::string where = Where{list.name, i};
        throw TensorError(where + " is a lazily negated view; pass " + where + ".resolve_neg()");
      }
    }
  }
}

std::vector<int64_t> TensorLists::signature() const {
  std::vector<int64_t> out;
  out.reserve(objects_.size() * 8);
  for (const TensorList& list : lists_) {
    out.push_back(static_cast<int64_t>(list.tensors.size()));
    for (const TensorRef& t : list.tensors) {
      out.push_back(reinterpret_cast<intptr_t>(t.data));
      out.push_back(static_cast<int64_t>(t.dtype) | static_cast<int64_t>(t.on_cuda) << 8 |
                    static_cast<int64_t>(t.present) << 9 | static_cast<int64_t>(t.device) << 16 |
                    static_cast<int64_t>(t.ndim) << 32);
      out.insert(out.end(), t.shape, t.shape + t.ndim);
      out.insert(out.end(), t.strides, t.strides + t.ndim);
    }
  }
  return out;
}

}  // namespace nos::bind
