// Owns what the module knows of the frameworks that tensors come from: the DLPack exchange table of a type of tensors,
// and every reliance on what a framework does not promise. Each of those is checked when it is first used; a failure
// names the versions. Callers hold the GIL.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "../plan/tensor_ref.h"
#include "dlpack.h"
#include "torch_tensor.h"

namespace nos::bind {

// Below this lies no memory but, in a view of a storage that was emptied, the view's offset in it: 1 TiB. (Where the
// system does give such addresses, the storage is asked, which takes longer.)
inline constexpr uintptr_t kLikelyAddress = uintptr_t{1} << 40;

struct TensorType {
  PyTypeObject* type = nullptr;
  const DLPackExchangeAPI* api = nullptr;
  bool versioned = false;               // its tensors have autograd's version counter: torch.Tensor and its subclasses
  bool has_storage = false;             // its tensors are views of a storage that can be replaced: torch's again
  const TorchTensor* direct = nullptr;  // torch's own tensors: how they are compared without an export
  bool has_to_arrive = false;           // its tensors stand for the results of asynchronous collectives
};

// The type of tensors that a Python type is, or null. torch >= 2.10 has an exchange table on torch.Tensor, which
// subclasses inherit. The result is valid until a few other types have been asked for.
const TensorType* tensor_type(PyTypeObject* type);

// The device of that back-ends know, by DLPack's name for it, or nothing.
std::optional<Device> device_of(DLDevice device);

// The current stream of a device, as the tensor's framework has it (of a CUDA device a cudaStream_t).
void* current_stream(PyObject* tensor, Device device);

// What an asynchronous collective of torch.distributed stands for, once it has arrived; null for other tensors.
pybind11::object arrived(PyObject* tensor);

// The memory that a tensor is a view of; its object keeps that memory alive, whatever becomes of the tensor.
struct Storage {
  pybind11::object object;
  uintptr_t begin;
  size_t bytes;
};
// A null object where the tensor has no storage that can be asked.
Storage storage_of(const TensorType& type, PyObject* tensor);
// The object alone, in a third of the time.
pybind11::object storage_object(PyObject* tensor);

// Adds one to autograd's version counter of every tensor of a sequence.
void increment_versions(PyObject* tensors);

// The first line of an exception's message: torch's are followed by the frames of a C++ stack.
std::string first_line(const pybind11::error_already_set& error);

}  // namespace nos::bind
