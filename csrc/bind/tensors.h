// Owns the way from Python objects to TensorRef: torch tensors through the DLPack C exchange API (no torch headers, no
// tie to one torch), NumPy arrays through the buffer they hold; and what keeps their memory alive during a call.
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

enum class Access { write, read, read_or_none };

// What decides whether the plan of an earlier call serves another one: everything that a plan is made of.
struct Snapshot {
  struct Tensor {
    TorchTensor::Facts facts;  // of torch's own tensors; of others, data and ndim only
    uint64_t kind;             // dtype, device, presence
  };
  std::vector<size_t> counts;   // tensors of each list
  std::vector<Tensor> tensors;  // of all lists, one after the other
  std::vector<int64_t> dims;    // shape, then strides, of every tensor
};

// moved: gradients lie at other addresses, as after every backward pass; all else is the same.
enum class Likeness { different, moved, same };

// The tensors of one call. The objects are owned, so that no Python code that runs meanwhile can free them; their
// memory is owned after own_memory().
class TensorLists {
 public:
  TensorLists() = default;
  ~TensorLists() { clear(); }
  TensorLists(const TensorLists&) = delete;
  TensorLists& operator=(const TensorLists&) = delete;

  // Takes a sequence of tensors, to be read later. Throws py::type_error for what is none.
  void add(std::string_view name, pybind11::handle sequence, Access access);
  // Waits for tensors that have to arrive and refuses lazily negated views, whose memory holds the wrong sign: of
  // subclasses, which have to be asked through Python. That gives the GIL away, so it comes first: what is read after
  // it stays true until the job runs, as long as no Python code runs.
  void settle();
  // Reads the tensors of all lists for a plan that is made anew, and refuses those that reach beyond their storage.
  // That asks each storage, in Python, so that it is made sure then that the tensors are the same still. Throws
  // TensorError or py::type_error naming list and index.
  Snapshot read_anew();
  // Reads what is needed to compare the tensors with those of an earlier call. Of tensors that are `same`, lists() then
  // says nothing; of those whose gradients `moved`, the addresses of all gradients. Throws as read_anew() does.
  Likeness read_like(const Snapshot& known);
  // Of the first parameter, before it is read; null where it has none.
  const void* first_address() const;
  // Refuses tensors that are not those of the snapshot any more, where Python code may have run since.
  void check_unmoved(const Snapshot& known);
  // Keeps the memory itself alive, which a tensor object does not: another thread may give it another storage (`w.data
  // = ...`) while a call runs without the GIL. known: of these tensors. Until clear().
  void own_memory(const Snapshot& known);

  std::span<const TensorList> lists() const { return {lists_.data(), count_}; }
  // Where and when work on the device of all tensors is done: in its framework's current stream.
  Place place(const Backend& backend, Device device) const;
  void refresh(Snapshot& known) const;  // gives it the addresses of the gradients, which have `moved`

  // Tells autograd that torch parameters were written, as torch's own in-place operations do: a backward pass that
  // needs the old values then fails instead of using the new ones. States never take part in autograd.
  void mark_modified() const;

  void clear();  // forgets the tensors, keeps the memory

  std::vector<double> scalars;  // memory for those of the call

 private:
  std::vector<TensorList> lists_;  // the first count_ are in use
  std::vector<Access> access_;     // of each list
  size_t count_ = 0;
  void read();
  void read_one(size_t list, size_t index, size_t number);
  Snapshot snapshot() const;  // after read()
  void check_storage() const;

  std::vector<PyObject*> objects_;                  // of all lists, one after the other; owned
  std::vector<pybind11::object> storages_;          // of own_memory
  std::deque<std::vector<int64_t>> array_strides_;  // NumPy's strides in elements
  size_t other_ = 0;                                // the tensor at which read_like ended, or that moved last
  bool all_plain_ = true;                           // nothing but torch's own tensors, and None
};

// TensorLists for one call, from a pool: in the steady state a call allocates nothing.
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
