// Owns the way from Python objects to TensorRef: torch tensors through the DLPack C exchange API (no torch headers, no
// tie to one torch), NumPy arrays through the buffer they hold.
#pragma once
#include <pybind11/pybind11.h>

#include <deque>
#include <vector>

#include "../plan/plan.h"

namespace nos::bind {

enum class Access { write, read, read_or_none };

// The tensors of one call. They are borrowed: the caller's sequences must outlive this object.
class TensorLists {
 public:
  // Reads a sequence of tensors. Throws TensorError or py::type_error naming list and index.
  void add(std::string name, pybind11::handle sequence, Access access);
  // Refuses lazily negated views, whose memory holds the wrong sign; objects known[i] have been checked before.
  void check_negation(const std::vector<PyObject*>& known) const;

  const std::vector<TensorList>& lists() const { return lists_; }
  const std::vector<PyObject*>& objects() const { return objects_; }  // of all lists, one after the other
  // Addresses, shapes, strides, dtypes and devices of all tensors: equal for calls that may share a plan.
  std::vector<int64_t> signature() const;

 private:
  std::vector<TensorList> lists_;
  std::vector<PyObject*> objects_;
  std::vector<pybind11::object> sequences_;         // keeps what was made from a caller's iterable alive
  std::deque<std::vector<int64_t>> array_strides_;  // NumPy's strides in elements
};

}  // namespace nos::bind
