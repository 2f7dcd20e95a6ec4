#include "states.h"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace py = pybind11;

namespace nos::bind {
// A quantized state has its scales beside it, under its own name with this behind it. No state can have such a name.
constexpr const char* kScale = ".scale";

// The keys of a program's states, which are kept with the program from call to call.
struct StateKeys {
  explicit StateKeys(const Program& program) {
    for (const std::string& name : program.states()) {
      names.push_back(py::reinterpret_steal<py::object>(interned(name.c_str())));
      labels.push_back("state['" + name + "']");
      scales.push_back(py::reinterpret_steal<py::object>(interned((name + kScale).c_str())));
      scale_labels.push_back("state['" + name + kScale + "']");
    }
  }
  std::vector<py::object> names;    // the names as keys of dicts
  std::vector<std::string> labels;  // what messages call their lists
  std::vector<py::object> scales;   // the names of their scales
  std::vector<std::string> scale_labels;
};

namespace {

const StateKeys& keys_of(const Program& program) {  // guarded by the GIL
  auto& kept = program.kept.state_keys;
  if (!kept) kept = std::make_shared<const StateKeys>(program);
  return *kept;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& n : names) out += (out.empty() ? "'" : ", '") + n + "'";
  return "[" + out + "]";
}

[[noreturn]] void bad_keys(Taker taker, const Program& program, PyObject* state) {
  const bool one = taker == Taker::apply_rule;
  throw std::invalid_argument(
      "state has the keys " + shown(py::list(py::reinterpret_borrow<py::object>(state)).ptr()) + "; " +
      (one ? "rule '" + program.name() + "' has" : std::string("the programs have")) + " the states " +
      joined(program.states()) +
      (one ? " (nos_ext.init_state makes them)" : " (nos_ext.init_population_state makes the lists in slot order)"));
}

[[noreturn]] void bad_count(Taker taker, const Program& program, size_t found, size_t wanted) {
  const std::string lists = "state has " + std::to_string(found) + (found == 1 ? " list" : " lists");
  if (taker == Taker::apply_rule)
    throw std::invalid_argument(lists + "; rule '" + program.name() + "' has the states " + joined(program.states()) +
                                " (nos_ext.init_state makes them)");
  throw std::invalid_argument(lists + " but the programs have up to " + std::to_string(wanted) +
                              (wanted == 1 ? " state" : " states") + " (nos_ext.init_population_state makes them)");
}

// The scales of a state that is not quantized.
py::list nothing(size_t count) {
  py::list out(count);
  for (size_t i = 0; i < count; ++i) out[i] = py::none();
  return out;
}

void add_by_name(TensorLists& tensors, Taker taker, std::span<const Program* const> programs, PyObject* state) {
  const Program& first = *programs[0];
  for (size_t k = 1; k < programs.size(); ++k)
    if (programs[k]->states() != first.states())
      throw std::invalid_argument("state is a dict but programs[0] and programs[" + std::to_string(k) +
                                  "] name different states, " + joined(first.states()) + " and " +
                                  joined(programs[k]->states()) +
                                  "; pass the lists in slot order (nos_ext.init_population_state makes them)");
  const StateKeys& keys = keys_of(first);
  using Lists = std::array<py::object, bytecode::kMaxStates>;  // owned, as reading one may run Python code
  Lists lists, scales;
  const size_t number = keys.names.size(), given = static_cast<size_t>(PyDict_GET_SIZE(state));
  const auto find = [&](const std::vector<py::object>& names, Lists& out) {
    size_t found = 0;
    for (size_t s = 0; s < number; ++s) {
      out[s] = py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(state, names[s].ptr()));
      if (PyErr_Occurred()) throw py::error_already_set();
      found += static_cast<bool>(out[s]);
    }
    return found;
  };
  const bool complete = find(keys.names, lists) == number;
  const size_t scaled = complete && given > number ? find(keys.scales, scales) : 0;
  if (!complete || given != number + scaled) bad_keys(taker, first, state);
  for (size_t s = 0; s < number; ++s) tensors.add(keys.labels[s], lists[s], Access::state);
  for (size_t s = 0; scaled && s < number; ++s) {
    if (!scales[s]) scales[s] = nothing(tensors.lists()[0].tensors.size());
    tensors.add(keys.scale_labels[s], scales[s], Access::scales);
  }
}

}  // namespace

void add_states(TensorLists& tensors, Taker taker, std::span<const Program* const> programs, PyObject* state) {
  py::object keep;
  if (!PyDict_Check(state) && !PyList_Check(state) && !PyTuple_Check(state) && py::hasattr(state, "keys")) {
    keep = py::dict(py::reinterpret_borrow<py::object>(state));
    state = keep.ptr();
  }
  if (PyDict_Check(state)) return add_by_name(tensors, taker, programs, state);
  constexpr const char* kWanted = "{name: [tensors]} or the lists in slot order";
  if (!PySequence_Check(state) || PyUnicode_Check(state) || PyBytes_Check(state))
    throw py::type_error(wrong_type("state", state, kWanted));
  const py::tuple lists = as_fast_sequence("state", state, kWanted);  // a copy, as reading a list may run Python code
  size_t wanted = 0;
  for (const Program* p : programs) wanted = std::max(wanted, p->states().size());
  const size_t found = lists.size();
  if (found != wanted) bad_count(taker, *programs[0], found, wanted);
  for (size_t s = 0; s < found; ++s) {
    const py::handle list = lists[s];
    // Slices of a population may have different names for a slot.
    if (taker == Taker::apply_rule)
      tensors.add(keys_of(*programs[0]).labels[s], list, Access::state);
    else
      tensors.add("state[" + std::to_string(s) + "]", list, Access::state);
  }
}

}  // namespace nos::bind
