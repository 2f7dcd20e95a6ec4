// Owns the way from Python objects to TensorRef, and what keeps the memory alive during a call. torch's tensors come
// through the DLPack C exchange API (without torch's headers, and for any version), NumPy's arrays through their
// buffers.
#pragma once
#include <pybind11/pybind11.h>

#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "../backend/backend.h"
#include "../plan/plan.h"
#include "torch_tensor.h"

namespace nos::bind {

// A state may be quantized. Of the scales of states, those of others are None.
enum class Access { write, read_or_none, state, scales };

// Everything that a plan is made of. It decides whether the plan of an earlier call serves another one.
struct Snapshot {
  struct Tensor {
    TorchTensor::Facts facts;  // of torch's own tensors; of others only data and ndim are set
    uint64_t kind;             // dtype, device, and whether the tensor is there
  };
  std::vector<size_t> counts;   // number of tensors in each list
  std::vector<Tensor> tensors;  // of all lists, one after the other
  std::vector<int64_t> dims;    // shape, then strides, of every tensor
};

// `moved` means that gradients lie at other addresses, as after every backward pass, and all else is the same.
enum class Likeness { different, moved, same };

// The tensors of one call. It owns the objects, so that no Python code that runs meanwhile can free them. After
// own_memory() it owns their memory, too.
class TensorLists {
 public:
  TensorLists() = default;
  ~TensorLists() { clear(); }
  TensorLists(const TensorLists&) = delete;
  TensorLists& operator=(const TensorLists&) = delete;

  // Takes a sequence of tensors, to be read later. Throws py::type_error for anything else.
  void add(std::string_view name, pybind11::handle sequence, Access access);
  // Waits for tensors that stand for asynchronous collectives, and refuses lazily negated views, whose memory holds the
  // wrong sign. Subclasses have to be asked about this through Python, which may release the GIL, so this comes first.
  // What is read afterwards stays true until the job runs, as long as no Python code runs.
  void settle();
  // Reads the tensors of all lists for a plan that is made anew, and refuses those that reach beyond their storage.
  // Each storage is asked through Python, so it is made sure afterwards that the tensors are still the same. Throws
  // TensorError or py::type_error naming list and index.
  Snapshot read_anew();
  // Reads only what is needed to compare the tensors with those of an earlier call. If they are the `same`, lists()
  // says nothing of them; if gradients have `moved`, it has the addresses of all gradients. Throws as read_anew() does.
  Likeness read_like(const Snapshot& known);
  // Returns the address of the first parameter, before it is read; null where it has none.
  const void* first_address() const;
  // Refuses tensors that differ from the snapshot, where Python code may have run since it was taken.
  void check_unmoved(const Snapshot& known);
  // Keeps the memory itself alive until clear(), which a tensor object does not do: while a call runs without the GIL,
  // another thread may give it another storage (`w.data = ...`). `known` is the snapshot of these tensors.
  void own_memory(const Snapshot& known);

  std::span<const TensorList> lists() const { return {lists_.data(), count_}; }
  size_t num_scales() const;  // how many lists, the last ones, are those of scales
  // Says where and when work on the device of all tensors is done: in its framework's current stream.
  Place place(const Backend& backend, Device device) const;
  void refresh(Snapshot& known) const;  // puts the addresses of the gradients, which have `moved`, into it

  // Tells autograd that torch's parameters were written, as torch's own in-place operations do. A backward pass that
  // needs the old values then fails instead of using the new ones. States never take part in autograd.
  void mark_modified() const;

  void clear();  // releases the tensors, but keeps its own memory for the next call

  std::vector<double> scalars;  // memory for the scalars of the call

 private:
  std::vector<TensorList> lists_;  // the first count_ are in use
  std::vector<Access> access_;     // of each list
  size_t count_ = 0;
  void read();
  void read_one(size_t list, size_t index, size_t number);
  Snapshot snapshot() const;  // after read()
  void check_storage() const;

  std::vector<PyObject*> objects_;                  // of all lists, one after the other; owned
  std::vector<pybind11::object> storages_;          // what own_memory() holds
  std::deque<std::vector<int64_t>> array_strides_;  // strides of NumPy's arrays, in elements
  size_t other_ = 0;                                // the tensor at which read_like() ended, or the last one that moved
  bool all_plain_ = true;                           // whether there are only torch's own tensors, and None
};

// A TensorLists for one call, from a pool, so that in the steady state a call allocates nothing.
class CallTensors {
 public:
  CallTensors();
  ~CallTensors();
  CallTensors(const CallTensors&) = delete;
  CallTensors& operator=(const CallTensors&) = delete;
  TensorLists& operator*() const { return *lists_; }
  TensorLists* operator->() const { return lists_.get(); }

 private:
  std::unique_ptr<TensorLists> lists_;
};

}  // namespace nos::bind
