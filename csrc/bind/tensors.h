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

  // Takes a sequence of tensors, to be read by read(). Throws py::type_error for what is none.
  void add(std::string_view name, pybind11::handle sequence, Access access);
  // Reads the tensors of all lists. Throws TensorError or py::type_error naming list and index. What an earlier call
  // has taken is in `seen`, see objects(): it is not asked again whether it is a lazily negated view, whose memory
  // holds the wrong sign. Asking gives the GIL away, so it comes first: what is read after it stays true until run_job,
  // as long as no Python code runs.
  void read(const std::vector<PyObject*>& seen) {
    check_negation(seen);
    read();
  }
  // The two halves of it, for several lists of tensors in one step.
  void check_negation(const std::vector<PyObject*>& seen);
  void read();
  // Refuses tensors that reach beyond their storage, which somebody has made smaller. For a plan that is made anew: it
  // asks each storage.
  void check_storage() const;
  // Refuses tensors that have been given other memory since read(), where Python code may have run.
  void check_unmoved() const;
  // Keeps the memory itself alive, which a tensor object does not: another thread may give it another storage (`w.data
  // =
  // ...`) while a call runs without the GIL. Until clear().
  void own_memory();

  std::span<const TensorList> lists() const { return {lists_.data(), count_}; }
  // Of all lists, one after the other. Outside of the call they serve for identity only: they may be gone.
  const std::vector<PyObject*>& objects() const { return objects_; }
  PyObject* object(size_t i) const { return objects_[i]; }
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
  std::vector<Access> access_;     // of each list
  size_t count_ = 0;
  void read_one(size_t list, size_t index, size_t number);

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
