// Owns the question whether an optimizer's param_groups and state hold the same objects as when they were last looked
// at. Everything that is remembered is kept alive, so that equal addresses mean the same object.
#pragma once
#include <pybind11/pybind11.h>

#include <vector>

namespace nos::bind {

// What has changed since the last look. A larger value means more work for the optimizer.
enum class Change : int {
  none = 0,
  division = 1,   // which parameters go into which engine call: gradients that are there or not, step numbers, flags
  structure = 2,  // parameters, states, groups
};

class Watch {
 public:
  // `hypers` has a tuple for each group: the names of its hyperparameters. `flags` has the keys of a group whose change
  // is a Change::division.
  Watch(pybind11::list groups, pybind11::dict state, pybind11::list hypers, pybind11::tuple flags);

  void remember();  // later looks compare with what is there now

  struct NewValue {
    size_t group, hyper;
    pybind11::object value;
  };
  // Adds the values of hyperparameters that have been replaced to `values`. The next look finds them again unless
  // keep() is called.
  Change look(PyObject* groups, PyObject* state, std::vector<NewValue>& values) const;
  void keep(const std::vector<NewValue>& values);

  const std::vector<pybind11::object>& params() const { return params_; }  // of all groups, in order
  const std::vector<uint32_t>& group_of() const { return group_of_; }      // of each parameter: the number of its group
  size_t num_groups() const { return groups_.size(); }
  std::vector<NewValue> values() const;  // the values of all hyperparameters, as remembered

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  enum Kind : int { ignored = -1, flag = -2, params_key = -3 };  // otherwise the number of a hyperparameter
  struct Item {
    PyObject* key;
    pybind11::object value;
    int kind;
  };
  struct Group {
    PyObject* dict;
    PyObject* params;
    std::vector<Item> items;
  };

  int kind_of(size_t group, PyObject* key) const;
  bool same_state(PyObject* state) const;
  bool same_params(const Group& group, size_t& first) const;

  pybind11::object group_list_, state_, hypers_, flags_;
  std::vector<Group> groups_;
  std::vector<pybind11::object> params_;
  std::vector<uint32_t> group_of_;
  std::vector<PyObject*> entries_;      // of the state: each key, its entry, and the values in the entry
  std::vector<pybind11::object> kept_;  // owns what the plain pointers above point to
};

}  // namespace nos::bind
