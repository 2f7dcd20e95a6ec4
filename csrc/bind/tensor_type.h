// Owns what the module knows of the frameworks from which tensors come: the DLPack exchange table of a tensor type, and
// everything that it relies on although the framework does not promise it. Each such thing is checked when it is first
// used, and a failure names the versions. Callers hold the GIL.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "../plan/tensor_ref.h"
#include "dlpack.h"
#include "torch_tensor.h"

namespace nos::bind {

// 1 TiB. An address below it is no memory but, in a view of a storage that was emptied, the view's offset in it.
// (Should the system give out such addresses, the storage is asked, which takes longer.)
inline constexpr uintptr_t kLikelyAddress = uintptr_t{1} << 40;

struct TensorType {
  PyTypeObject* type = nullptr;
  const DLPackExchangeAPI* api = nullptr;
  bool versioned = false;    // whether tensors have autograd's version counter: torch.Tensor and its subclasses do
  bool has_storage = false;  // whether tensors are views of a storage that can be replaced: the same types
  const TorchTensor* direct = nullptr;  // for torch's own tensors: how they are compared without an export
  bool has_to_arrive = false;           // whether tensors stand for the results of asynchronous collectives
};

// Returns the tensor type that a Python type is, or null. torch >= 2.10 has an exchange table on torch.Tensor, which
// subclasses inherit. The result is valid until a few other types have been asked for.
const TensorType* tensor_type(PyTypeObject* type);

// Returns the device that DLPack names so, or nothing where no back-end knows it.
std::optional<Device> device_of(DLDevice device);

// Returns the current stream of a device, as the tensor's framework has it (of a CUDA device a cudaStream_t).
void* current_stream(PyObject* tensor, Device device);

// Waits for an asynchronous collective of torch.distributed and returns its result. Returns null for other tensors.
pybind11::object arrived(PyObject* tensor);

// The memory of which a tensor is a view. `object` keeps that memory alive, whatever becomes of the tensor.
struct Storage {
  pybind11::object object;
  uintptr_t begin;
  size_t bytes;
};
// The object is null where the tensor has no storage that can be asked.
Storage storage_of(const TensorType& type, PyObject* tensor);
// Returns the object alone, which takes a third of the time.
pybind11::object storage_object(PyObject* tensor);

// Adds one to autograd's version counter of every tensor that has one.
void increment_versions(const pybind11::list& tensors);

// Returns the first line of an exception's message. After it, torch's messages have the frames of a C++ stack.
std::string first_line(const pybind11::error_already_set& error);

}  // namespace nos::bind
