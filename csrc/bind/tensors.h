// Owns the way from Python objects to TensorRef: torch tensors through the DLPack C exchange API (no torch headers, no
// tie to one torch), NumPy arrays through the buffer they hold; and what keeps their memory alive during a call.
#pragma once
#include <pybind11/pybind11.h>

#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "../plan/plan.h"

namespace nos::bind {

enum class Access { write, read, read_or_none };

// What decides whether the plan of an earlier call serves another one: everything that a plan is made of.
struct Snapshot {
  struct Tensor {
    const void* data;
    uint64_t kind;  // dtype, device, presence, number of dimensions
  };
  std::vector<size_t> counts;      // tensors of each list
  std::vector<Tensor> tensors;     // of all lists, one after the other
  std::vector<int64_t> dims;       // shape, then strides, of every tensor
  std::vector<PyObject*> objects;  // for identity only: possibly dangling, never dereferenced
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

  // Reads a sequence of tensors. Throws TensorError or py::type_error naming list and index.
  void add(std::string_view name, pybind11::handle sequence, Access access);
  // Refuses lazily negated views, whose memory holds the wrong sign; known.objects[i] have been checked before. May run
  // Python code, which may change `known`.
  void check_negation(const Snapshot& known) const;
  // Refuses tensors that reach beyond their storage, which somebody has made smaller. For a plan that is made anew: it
  // asks each storage.
  void check_storage() const;
  // Keeps the memory itself alive, which a tensor object does not: another thread may give it another storage (`w.data
  // =
  // ...`) while a call runs without the GIL. Until clear().
  void own_memory();

  std::span<const TensorList> lists() const { return {lists_.data(), count_}; }
  PyObject* object(size_t i) const { return objects_[i]; }  // of all lists, one after the other
  size_t size() const { return objects_.size(); }
  Likeness compare(const Snapshot& known) const;
  Snapshot snapshot() const;
  void refresh(Snapshot& known) const;  // makes known a snapshot of these tensors, which are not `different`

  // Tells autograd that torch parameters were written, as torch's own in-place operations do: a backward pass that
  // needs the old values then fails instead of using the new ones. States never take part in autograd.
  void mark_modified() const;

  void clear();  // forgets the tensors, keeps the memory

  std::vector<double> scalars;  // memory for those of the call

 private:
  std::vector<TensorList> lists_;  // the first count_ are in use
  size_t count_ = 0;
  void read(size_t list, size_t index, size_t number, Access access);

  std::vector<PyObject*> objects_;                  // of all lists, one after the other; owned
  pybind11::object written_;                        // the caller's own list of parameters
  std::vector<pybind11::object> storages_;          // of own_memory
  std::deque<std::vector<int64_t>> array_strides_;  // NumPy's strides in elements
  bool all_versioned_ = true;                       // every parameter has a version counter
  bool all_present_ = true;                         // and a gradient
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
