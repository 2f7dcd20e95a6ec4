#include "tensors.h"

#include <pybind11/numpy.h>

#include <algorithm>

#include "arguments.h"
#include "tensor_type.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

// Stands for list[index] in messages. The text is made only when there is something to say.
struct Where {
  const std::string& list;
  size_t index;
  operator std::string() const { return list + "[" + std::to_string(index) + "]"; }
};
std::string operator+(const Where& where, const char* text) { return std::string(where) + text; }

[[noreturn]] void negated(const Where& where) {
  throw TensorError(where + " is a lazily negated view; pass " + std::string(where) + ".resolve_neg()");
}

[[noreturn]] void bad_dtype(Where where, const std::string& dtype) {
  throw TensorError(
      where + " is " + dtype + "; supported are float32, float64, bfloat16 and float16" +
      (dtype.rfind("complex", 0) == 0 ? " (pass a real view of it, as torch.view_as_real makes one)" : ""));
}

DType dlpack_dtype(Where where, DLDataType t, Access access) {
  if (t.lanes == 1) {
    if (access == Access::state && t.code == kDLInt && t.bits == 8) return DType::i8;
    if (access == Access::state && t.code == kDLUInt && t.bits == 8) return DType::u8;
    if (t.code == kDLFloat && t.bits == 32) return DType::f32;
    if (t.code == kDLFloat && t.bits == 64) return DType::f64;
    if (t.code == kDLFloat && t.bits == 16) return DType::f16;
    if (t.code == kDLBfloat && t.bits == 16) return DType::bf16;
  }
  static constexpr const char* kKinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string bits = t.code == kDLBool ? "" : std::to_string(t.bits);
  bad_dtype(where, t.code < std::size(kKinds) ? kKinds[t.code] + bits : "an unknown " + bits + "-bit type");
}

// `reason` is what the tensor's framework said, or nothing.
[[noreturn]] void no_memory(Where where, PyObject* tensor, const std::string& reason = {}) {
  const auto text = [tensor](const char* attribute) -> std::string {
    try {
      return py::str(py::handle(tensor).attr(attribute));
    } catch (py::error_already_set&) {
      return "unknown";
    }
  };
  throw TensorError(
      where + " has no memory to work on: it is a " + type_name(tensor) + " of layout " + text("layout") + " on " +
      text("device") + (reason.empty() ? "" : " [" + reason + "]") +
      "; pass a dense tensor with data (of a wrapper what it holds, of a distributed tensor its local part)");
}

void from_dlpack(Where where, PyObject* tensor, const TensorType& type, Access access, TensorRef& out) {
  DLTensor d;
  if (type.api->dltensor_from_py_object_no_sync(tensor, &d) != 0) {
    const py::error_already_set reason;
    if (reason.matches(PyExc_MemoryError)) throw reason;
    no_memory(where, tensor, first_line(reason));
  }
  out.dtype = dlpack_dtype(where, d.dtype, access);
  out.data = static_cast<char*>(d.data) + d.byte_offset;
  out.present = true;
  const std::optional<Device> device = device_of(d.device);
  if (!device)
    throw TensorError(where + " is on device " + std::string(py::str(py::handle(tensor).attr("device"))) +
                      "; supported are the CPU and CUDA devices");
  out.device = *device;
  out.shape = d.shape;
  out.strides = d.strides;
  out.ndim = d.ndim;
  out.numel = 1;
  for (int i = 0; i < d.ndim; ++i) out.numel *= d.shape[i];
}

// Whether a tensor has elements but no memory, as FakeTensors, wrappers of other tensors and emptied storages have
// none.
bool lacks_memory(const TensorRef& t, const TensorType& type, PyObject* tensor) {
  if (t.numel == 0 || reinterpret_cast<uintptr_t>(t.data) >= kLikelyAddress) return false;
  if (!t.data) return true;
  const Storage storage = storage_of(type, tensor);
  return storage.object && storage.begin == 0;
}

// The number of elements from the first to the last one in memory.
int64_t extent(const TensorRef& t) {
  int64_t last = 0;
  for (int d = 0; d < t.ndim; ++d) last += (t.shape[d] - 1) * t.strides[d];
  return last + 1;
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
  else if (access == Access::state && t.itemsize() == 1 && (t.kind() == 'i' || t.kind() == 'u'))
    out.dtype = t.kind() == 'i' ? DType::i8 : DType::u8;
  else
    bad_dtype(where, py::str(t));
  if (access != Access::read_or_none && !a.writeable())
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

void TensorLists::add(std::string_view name, py::handle sequence, Access access) {
  PyObject* given = sequence.ptr();
  // For a plain sequence no attributes are looked up.
  const bool plain = PyList_Check(given) || PyTuple_Check(given);
  if (!plain && (tensor_type(Py_TYPE(given)) || py::isinstance<py::array>(sequence) || PyUnicode_Check(given) ||
                 PyBytes_Check(given) || PyDict_Check(given)))
    throw py::type_error(wrong_type(name, given, "a list of tensors"));
  const py::object fast = as_fast_sequence(name, given, "a list of tensors");
  const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(fast.ptr()));
  if (count_ == lists_.size()) lists_.emplace_back();
  access_.push_back(access);
  TensorList& list = lists_[count_++];
  list.name.assign(name);
  list.tensors.resize(n);  // read() sets every field, so what an earlier call left does not matter
  PyObject* const* items = PySequence_Fast_ITEMS(fast.ptr());
  objects_.insert(objects_.end(), items, items + n);
  for (size_t i = 0; i < n; ++i) Py_INCREF(items[i]);
  // Python code is asked about a new type, and may change the list meanwhile.
  const PyTypeObject* type = nullptr;
  for (size_t i = objects_.size() - n; i < objects_.size(); ++i) {
    if (Py_TYPE(objects_[i]) == type || objects_[i] == Py_None) continue;
    type = Py_TYPE(objects_[i]);
    const TensorType* known = tensor_type(Py_TYPE(objects_[i]));
    all_plain_ &= known && known->direct;
  }
}

void TensorLists::read() {
  array_strides_.clear();
  size_t number = 0;
  for (size_t l = 0; l < count_; ++l)
    for (size_t i = 0; i < lists_[l].tensors.size(); ++i, ++number) read_one(l, i, number);
}

void TensorLists::read_one(size_t list, size_t index, size_t number) {
  PyObject* item = objects_[number];
  const Access access = access_[list];
  TensorRef& out = lists_[list].tensors[index];
  const Where where{lists_[list].name, index};
  if (item == Py_None && (access == Access::read_or_none || access == Access::scales)) {
    out = {};
    out.present = false;
  } else if (const TensorType* known = tensor_type(Py_TYPE(item))) {
    const TensorType type = *known;
    from_dlpack(where, item, type, access, out);
    if (lacks_memory(out, type, item)) no_memory(where, item);
    if (type.direct && type.direct->is_negated(item)) negated(where);
  } else if (py::isinstance<py::array>(item)) {
    array_strides_.emplace_back();
    out = from_numpy(where, py::reinterpret_borrow<py::array>(item), access, array_strides_.back());
  } else {
    throw py::type_error(wrong_type(std::string(where), item,
                                    std::string("a torch.Tensor (torch >= 2.10) or a numpy.ndarray") +
                                        (access == Access::read_or_none ? ", or None to skip the parameter" : "")));
  }
}

// Lazily negated views are refused, as the exchange API exports their raw memory. (A conjugated view is complex, and
// that dtype is refused anyway.) A tensor that stands for an asynchronous collective is replaced by the collective's
// result.
void TensorLists::settle() {
  if (all_plain_) return;
  static PyObject* const is_neg = interned("is_neg");
  size_t number = 0;
  for (const TensorList& list : lists()) {
    for (size_t i = 0; i < list.tensors.size(); ++i, ++number) {
      PyObject* item = objects_[number];
      const TensorType* type = item == Py_None ? nullptr : tensor_type(Py_TYPE(item));
      if (!type || type->direct) continue;
      if (type->has_to_arrive) {
        if (py::object there = arrived(item)) {
          objects_[number] = there.release().ptr();
          Py_DECREF(item);
          item = objects_[number];
        }
      }
      const auto answer = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(item, is_neg));
      if (!answer)
        forget_error();  // the type is not torch's, so it has no lazy negation
      else if (answer.ptr() == Py_True)
        negated({list.name, i});
    }
  }
}

const void* TensorLists::first_address() const {
  if (lists_[0].tensors.empty()) return nullptr;
  PyObject* first = objects_[0];
  TensorRef out;
  if (const TensorType* known = tensor_type(Py_TYPE(first))) {
    const TensorType type = *known;
    from_dlpack({lists_[0].name, 0}, first, type, access_[0], out);
  } else if (py::isinstance<py::array>(first)) {
    out.data = const_cast<void*>(py::reinterpret_borrow<py::array>(first).data());
  }
  return out.data;
}

Snapshot TensorLists::read_anew() {
  read();
  Snapshot known = snapshot();
  check_storage();
  check_unmoved(known);
  read();
  return known;
}

// Refuses tensors that reach beyond their storage, which somebody has made smaller.
void TensorLists::check_storage() const {
  struct Reach {
    const TensorRef& tensor;
    Where where;
    Storage storage;
  };
  std::vector<Reach> found;
  size_t number = 0;
  for (const TensorList& list : lists()) {
    for (size_t i = 0; i < list.tensors.size(); ++i, ++number) {
      const TensorRef& t = list.tensors[i];
      const TensorType* known = tensor_type(Py_TYPE(objects_[number]));
      if (!known || !t.present || t.numel == 0) continue;
      Storage storage = storage_of(TensorType(*known), objects_[number]);
      if (storage.object) found.push_back({t, {list.name, i}, std::move(storage)});
    }
  }
  for (const auto& [t, where, storage] : found) {
    const auto begin = reinterpret_cast<uintptr_t>(t.data);
    const auto bytes = static_cast<size_t>(extent(t)) * static_cast<size_t>(size_of(t.dtype));
    if (begin < storage.begin || begin + bytes > storage.begin + storage.bytes)
      throw TensorError(where + " has " + std::to_string(t.numel) + " elements, which reach beyond its storage of " +
                        std::to_string(storage.bytes) +
                        " bytes; make the storage as large as the tensor again (untyped_storage().resize_)");
  }
}

void TensorLists::check_unmoved(const Snapshot& known) {
  other_ = 0;
  if (read_like(known) == Likeness::same) return;
  size_t list = 0, index = other_;
  while (index >= lists_[list].tensors.size()) index -= lists_[list++].tensors.size();
  throw std::runtime_error(Where{lists_[list].name, index} +
                           " was given other memory by another thread while the call was reading it; make the threads "
                           "take turns");
}

void TensorLists::own_memory(const Snapshot& known) {
  if (!storages_.empty()) return;
  for (size_t number = 0; number < objects_.size(); ++number) {
    if (objects_[number] == Py_None) continue;  // read_one() has let it pass
    const TensorType* type = tensor_type(Py_TYPE(objects_[number]));
    if (!type || !type->has_storage) continue;
    py::object storage = storage_object(objects_[number]);
    if (!storage) throw py::error_already_set();
    storages_.push_back(std::move(storage));
  }
  check_unmoved(known);
}

Place TensorLists::place(const Backend& backend, Device device) const {
  return {device.number, backend.has_streams() ? current_stream(objects_[0], device) : nullptr};
}

size_t TensorLists::num_scales() const {
  return static_cast<size_t>(std::count(access_.begin(), access_.end(), Access::scales));
}

void TensorLists::mark_modified() const {
  const auto &params = lists_[0].tensors, &grads = lists_[1].tensors;
  py::list others;
  for (size_t i = 0; i < params.size(); ++i) {
    if (!grads[i].present) continue;
    const TensorType* type = tensor_type(Py_TYPE(objects_[i]));
    if (!type || !type->versioned || (type->direct && type->direct->count_write(objects_[i]))) continue;
    if (PyList_Append(others.ptr(), objects_[i]) != 0) throw py::error_already_set();
  }
  if (!others.empty()) increment_versions(others);
}

void TensorLists::clear() {
  count_ = 0;
  access_.clear();
  storages_.clear();
  array_strides_.clear();
  all_plain_ = true;
  for (PyObject* object : objects_) Py_DECREF(object);
  objects_.clear();
}

namespace {

constexpr size_t kPool = 4;

// Objects that no call is using. Guarded by the GIL; never freed, as the interpreter may be gone at exit.
std::vector<std::unique_ptr<TensorLists>>& pool() {
  static auto& lists = *[] {
    auto made = std::make_unique<std::vector<std::unique_ptr<TensorLists>>>();
    made->reserve(kPool);  // a destructor adds to it and must not fail
    return made.release();
  }();
  return lists;
}

}  // namespace

CallTensors::CallTensors() {
  if (pool().empty()) {
    lists_ = std::make_unique<TensorLists>();
  } else {
    lists_ = std::move(pool().back());
    pool().pop_back();
  }
}

CallTensors::~CallTensors() {
  lists_->clear();
  if (pool().size() < kPool) pool().push_back(std::move(lists_));
}

}  // namespace nos::bind
