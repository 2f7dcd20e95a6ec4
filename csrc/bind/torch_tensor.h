// Owns the short way to a torch.Tensor. It tells whether a tensor is what an earlier call has seen, in a quarter of the
// time of an export through DLPack, and counts a write to a tensor without a call through Python.
//
// The address comes from aoti_torch_get_data_ptr, which belongs to the C interface that torch keeps stable. Other
// answers come from C++ functions of libtorch, which are looked up by name. Shape, strides, dtype and device are read
// where torch keeps them. torch does not promise that place, so learn() finds it by experiments with this torch. What
// is missing or cannot be confirmed is asked for in the long way, with the same results.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace nos::bind {

class TorchTensor {
 public:
  static constexpr int kMostDims = 5;  // torch keeps shape and strides elsewhere when there are more

  // What an earlier call has seen of a tensor.
  struct Facts {
    const void* data = nullptr;
    bool known = false;  // false where the short way is closed
    uint64_t type = 0;   // dtype and device, as torch packs them
    int32_t ndim = 0;
    int32_t itemsize = 0;
    int64_t extent = 0;  // elements from the first one to the last one in memory
  };
  enum class Seen { other, moved, same };

  // Returns the short way for objects of exactly this type, or null. When it is first asked for torch's types it runs
  // Python code and releases the GIL.
  static const TorchTensor* of(PyTypeObject* type);
  // For build_info(): says whether the short way is open, or why not.
  static std::string status();

  // Returns the facts of a tensor. `dims` holds its shape and strides, one after the other. If it does not have these,
  // the facts are not known.
  Facts facts(PyObject* tensor, const void* data, int32_t itemsize, int32_t ndim, const int64_t* dims) const;

  // Compares a tensor with the facts of an earlier call. `moved` means that only its address, *data, is another.
  Seen compare(PyObject* tensor, const Facts& known, const int64_t* dims, const void** data) const {
    const Handle handle = handle_of(tensor);
    const char* body = body_of(handle);
    if (!body || !fits(body, known.type, known.ndim, dims) || is_negated_(handle)) return Seen::other;
    void* address;  // sparse tensors and the like have none
    if (data_ptr_(handle, &address) != 0) return Seen::other;
    *data = address;
    // An opaque tensor has an address, too, which may be that of the tensor in whose place it stands.
    if (!is_dense(handle)) return Seen::other;
    return address == known.data ? Seen::same : Seen::moved;
  }

  // Whether a tensor that has only moved since `known` lies inside its storage, which may have been made smaller.
  bool lies_inside(PyObject* tensor, const Facts& known) const {
    const Handle handle = handle_of(tensor);
    int64_t bytes;
    return storage_size_(handle, &bytes) == 0 &&
           (offset_of(body_of(handle)) + known.extent) * int64_t{known.itemsize} <= bytes;
  }

  // Adds one to autograd's version counter. Returns false where torch does not allow that, as for inference tensors.
  bool count_write(PyObject* tensor) const {
    if (!count_write_) return false;
    try {
      count_write_(handle_of(tensor));
    } catch (...) {
      return false;
    }
    return true;
  }

  // Whether a tensor is a lazily negated view, whose memory holds the wrong sign.
  bool is_negated(PyObject* tensor) const {
    const Handle handle = handle_of(tensor);
    return body_of(handle) && is_negated_(handle);
  }

 private:
  // An at::Tensor*. It lies inside the Python object and points to the address of the C++ object.
  using Handle = const char* const*;

  static TorchTensor g_way;  // the same for all tensors
  TorchTensor() = default;
  static void experiment();  // in a thread of its own, with the GIL
  bool find_functions(const pybind11::module_& torch);
  const char* learn(const pybind11::module_& torch);  // returns null, or what is not as expected
  bool find_body(const pybind11::handle& tensor);
  bool reads_right(const pybind11::handle& tensor) const;

  Handle handle_of(PyObject* tensor) const {
    return reinterpret_cast<Handle>(reinterpret_cast<const char*>(tensor) + handle_at_);
  }
  static const char* body_of(Handle handle) { return *handle; }
  const int64_t* sizes_of(const char* body) const { return reinterpret_cast<const int64_t*>(body + sizes_at_); }
  // The words from `sizes` on: shape, strides, offset, number of elements, then dtype and device in the lower bytes of
  // one.
  static constexpr int kStrides = kMostDims, kOffset = 2 * kMostDims, kType = kOffset + 2;
  static uint64_t type_of(const int64_t* sizes) {
    constexpr uint64_t kTypeBits = (uint64_t{1} << 40) - 1;
    return static_cast<uint64_t>(sizes[kType]) & kTypeBits;
  }
  bool fits(const char* body, uint64_t type, int32_t ndim, const int64_t* dims) const {
    const int64_t* sizes = sizes_of(body);
    if (sizes[-1] != ndim || type_of(sizes) != type) return false;
    for (int32_t d = 0; d < ndim; ++d)
      if (sizes[d] != dims[d] || sizes[kStrides + d] != dims[ndim + d]) return false;
    return true;
  }

  int64_t offset_of(const char* body) const { return sizes_of(body)[kOffset]; }
  bool is_dense(Handle handle) const {
    int32_t layout;
    return layout_(handle, &layout) == 0 && layout == dense_;
  }

  size_t handle_at_ = 0;  // offset in the Python object, in bytes
  size_t sizes_at_ = 0;   // offset in the C++ object, in bytes
  int32_t dense_ = 0;     // the number of torch's dense layout
  int32_t (*data_ptr_)(Handle, void**) = nullptr;
  int32_t (*sizes_)(Handle, int64_t**) = nullptr;
  int32_t (*layout_)(Handle, int32_t*) = nullptr;
  int32_t (*storage_size_)(Handle, int64_t*) = nullptr;
  bool (*is_negated_)(Handle) = nullptr;
  void (*count_write_)(Handle) = nullptr;
};

}  // namespace nos::bind
