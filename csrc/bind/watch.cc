#include "watch.h"

#include <string>
#include <utility>

namespace py = pybind11;

namespace nos::bind {

Watch::Watch(py::list groups, py::dict state, py::list hypers, py::tuple flags)
    : group_list_(std::move(groups)), state_(std::move(state)), hypers_(std::move(hypers)), flags_(std::move(flags)) {
  remember();
}

int Watch::kind_of(size_t group, PyObject* key) const {
  const auto position = [key](PyObject* names) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
      const int equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(names, i), key, Py_EQ);
      if (equal < 0) throw py::error_already_set();
      if (equal) return static_cast<int>(i);
    }
    return -1;
  };
  const auto number = static_cast<Py_ssize_t>(group);
  const int hyper = number < PyList_GET_SIZE(hypers_.ptr()) ? position(PyList_GET_ITEM(hypers_.ptr(), number)) : -1;
  if (hyper >= 0) return hyper;
  if (position(flags_.ptr()) >= 0) return flag;
  return py::str("params").equal(py::handle(key)) ? params_key : ignored;
}

void Watch::remember() {
  std::vector<py::object> kept;
  const auto keep = [&kept](PyObject* object) {
    kept.push_back(py::reinterpret_borrow<py::object>(object));
    return object;
  };
  // These are destroyed when the function ends, since a finalizer may look at the optimizer.
  const std::vector<Group> old_groups = std::exchange(groups_, {});
  const std::vector<py::object> old_params = std::exchange(params_, {});
  group_of_.clear();
  entries_.clear();
  const PyObject* list = group_list_.ptr();
  for (Py_ssize_t g = 0; g < PyList_GET_SIZE(list); ++g) {
    PyObject* dict = PyList_GET_ITEM(list, g);
    if (!PyDict_Check(dict)) throw py::type_error("param_groups[" + std::to_string(g) + "] is not a dict");
    Group group{keep(dict), nullptr, {}};
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value);) {
      group.items.push_back(
          {keep(key), py::reinterpret_borrow<py::object>(value), kind_of(static_cast<size_t>(g), key)});
      if (group.items.back().kind == params_key) group.params = value;
    }
    if (!group.params || !PyList_Check(group.params))
      throw py::type_error("param_groups[" + std::to_string(g) + "]['params'] is not a list");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(group.params); ++i) {
      params_.push_back(py::reinterpret_borrow<py::object>(PyList_GET_ITEM(group.params, i)));
      group_of_.push_back(static_cast<uint32_t>(g));
    }
    groups_.push_back(std::move(group));
  }
  PyObject *key, *entry, *name, *value;
  for (Py_ssize_t at = 0; PyDict_Next(state_.ptr(), &at, &key, &entry);) {
    entries_.push_back(keep(key));
    entries_.push_back(keep(entry));
    if (!PyDict_Check(entry)) continue;
    for (Py_ssize_t i = 0; PyDict_Next(entry, &i, &name, &value);) entries_.push_back(keep(value));
  }
  kept_.swap(kept);
}

bool Watch::same_state(PyObject* state) const {
  if (state != state_.ptr()) return false;
  size_t n = 0;
  const auto is_next = [&](PyObject* object) { return n < entries_.size() && entries_[n++] == object; };
  PyObject *key, *entry, *name, *value;
  for (Py_ssize_t at = 0; PyDict_Next(state, &at, &key, &entry);) {
    if (!is_next(key) || !is_next(entry)) return false;
    if (!PyDict_Check(entry)) continue;
    Py_ssize_t i = 0;
    // Counting spares the call of PyDict_Next that would find the end.
    for (Py_ssize_t left = PyDict_GET_SIZE(entry); left > 0; --left)
      if (!PyDict_Next(entry, &i, &name, &value) || !is_next(value)) return false;
  }
  return n == entries_.size();
}

bool Watch::same_params(const Group& group, size_t& first) const {
  const auto n = static_cast<size_t>(PyList_GET_SIZE(group.params));
  if (first + n > params_.size()) return false;
  for (size_t i = 0; i < n; ++i)
    if (PyList_GET_ITEM(group.params, static_cast<Py_ssize_t>(i)) != params_[first + i].ptr()) return false;
  first += n;
  return true;
}

Change Watch::look(PyObject* groups, PyObject* state, std::vector<NewValue>& values) const {
  if (groups != group_list_.ptr() || static_cast<size_t>(PyList_GET_SIZE(groups)) != groups_.size())
    return Change::structure;
  Change change = Change::none;
  size_t first = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const Group& group = groups_[g];
    if (PyList_GET_ITEM(groups, static_cast<Py_ssize_t>(g)) != group.dict ||
        static_cast<size_t>(PyDict_GET_SIZE(group.dict)) != group.items.size())
      return Change::structure;
    PyObject *key, *value;
    const Item* item = group.items.data();
    for (Py_ssize_t at = 0; PyDict_Next(group.dict, &at, &key, &value); ++item) {
      if (key != item->key) return Change::structure;
      if (value == item->value.ptr() || item->kind == ignored) continue;
      if (item->kind == params_key) return Change::structure;
      if (item->kind == flag)
        change = Change::division;
      else
        values.push_back({g, static_cast<size_t>(item->kind), py::reinterpret_borrow<py::object>(value)});
    }
    if (!same_params(group, first)) return Change::structure;
  }
  return first == params_.size() && same_state(state) ? change : Change::structure;
}

void Watch::keep(const std::vector<NewValue>& values) {
  std::vector<py::object> old;  // destroyed when the function ends, as in remember()
  for (const NewValue& v : values) {
    if (v.group >= groups_.size()) continue;
    for (Item& item : groups_[v.group].items)
      if (item.kind == static_cast<int>(v.hyper)) old.push_back(std::exchange(item.value, v.value));
  }
}

std::vector<Watch::NewValue> Watch::values() const {
  std::vector<NewValue> out;
  for (size_t g = 0; g < groups_.size(); ++g)
    for (const Item& item : groups_[g].items)
      if (item.kind >= 0) out.push_back({g, static_cast<size_t>(item.kind), item.value});
  return out;
}

int Watch::traverse(visitproc visit, void* arg) const {
  for (const py::object* one : {&group_list_, &state_, &hypers_, &flags_}) Py_VISIT(one->ptr());
  for (const auto* many : {&params_, &kept_})
    for (const py::object& one : *many) Py_VISIT(one.ptr());
  for (const Group& group : groups_)
    for (const Item& item : group.items) Py_VISIT(item.value.ptr());
  return 0;
}

void Watch::clear() {
  groups_.clear();
  entries_.clear();
  params_.clear();
  kept_.clear();
  group_list_ = state_ = hypers_ = flags_ = py::object();
}

}  // namespace nos::bind
