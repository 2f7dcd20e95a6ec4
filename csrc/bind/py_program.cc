#include <pybind11/stl.h>

#include <optional>
#include <span>
#include <stdexcept>

#include "../ops/op.h"
#include "../program/names.h"
#include "../program/program.h"
#include "bind.h"
#include "instances.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

const char* domain_name(Domain d) {
  switch (d) {
    case Domain::any:
      return "any";
    case Domain::scalar:
      return "scalar";
    case Domain::random:
      return "random";
    case Domain::reduce:
      return "reduce";
    case Domain::global:
      return "global";
  }
  throw std::logic_error("a domain without a name");
}

py::list op_table() {
  py::list rows;
  for (int code = 0; code < kNumOps; ++code) {
    const OpInfo& op = kOps[static_cast<size_t>(code)];
    py::dict row;
    row["code"] = code;
    row["name"] = op.name;
    row["arity"] = op.arity;
    row["domain"] = domain_name(op.domain);
    row["symbol"] = op.symbol;
    row["commutes"] = op.commutes;
    row["cost"] = op.cost;
    row["numpy"] = op.numpy;
    row["torch"] = op.torch;
    row["latex"] = op.latex;
    row["doc"] = op.doc;
    rows.append(row);
  }
  return rows;
}

py::tuple names(std::span<const std::string_view> list) {
  py::tuple out(list.size());
  for (size_t i = 0; i < list.size(); ++i) out[i] = list[i];
  return out;
}

py::dict name_table() {
  py::dict out;
  out["python"] = names(python_names());
  out["language"] = names(language_names());
  out["arguments"] = names(argument_names());
  return out;
}

NameOf name_of(std::string_view kind) {
  if (kind == "rule") return NameOf::rule;
  if (kind == "state") return NameOf::state;
  if (kind == "hyperparameter") return NameOf::hyperparameter;
  if (kind == "value") return NameOf::value;
  throw std::invalid_argument("kind is '" + std::string(kind) + "'; pass 'rule', 'state', 'hyperparameter' or 'value'");
}

py::bytes to_bytes(const std::vector<uint8_t>& v) {
  return py::bytes(reinterpret_cast<const char*>(v.data()), v.size());
}

py::list instructions(const std::vector<Instr>& code) {
  py::list out;
  for (const Instr& i : code) out.append(py::make_tuple(info(i.op).name, i.a.bits, i.b.bits, i.c.bits));
  return out;
}

}  // namespace

void bind_program(py::module_& m) {
  m.def("op_table", &op_table, "The rows of csrc/ops/ops.def, in opcode order.");
  m.def("name_table", &name_table,
        "The names that are taken: by 'python', by the 'language', by 'arguments' of a call.");
  m.def(
      "name_problem",
      [](std::string_view kind, const py::bytes& name) -> std::optional<std::string> {
        std::string problem = name_problem(name_of(kind), std::string_view(name));
        if (problem.empty()) return std::nullopt;
        return problem;
      },
      py::arg("kind"), py::arg("name"),
      "What is wrong with a name, in UTF-8, for a 'rule', 'state', 'hyperparameter' or 'value': the end of a sentence "
      "that begins with the name. None when nothing is.");

  py::class_<Program> program(m, "Program", py::custom_type_setup(checked_new),
                              "A verified update rule; see nos_ext.Program.");
  def_init<const py::bytes&>(
      program,
      [](const py::bytes& bytecode) {
        const std::string_view b = bytecode;
        return std::make_unique<Program>(Program::parse({reinterpret_cast<const uint8_t*>(b.data()), b.size()}));
      },
      py::arg("bytecode"), "Verifies bytecode; ValueError says what is wrong and where.");
  program
      .def_property_readonly(
          "bytecode", [](const Program& p) { return to_bytes(p.bytes()); }, "The program as versioned bytes.")
      .def_property_readonly("name", &Program::name, "Name of the rule.")
      .def_property_readonly(
          "state_names", [](const Program& p) { return py::tuple(py::cast(p.states())); },
          "Names of the state tensors, in slot order.")
      .def_property_readonly(
          "hyperparameters",
          [](const Program& p) {
            py::dict out;
            for (const Hyper& h : p.hypers()) out[py::str(h.name)] = h.has_default ? py::cast(h.value) : py::none();
            return out;
          },
          "Name -> default of every scalar argument, in order; None for lr, which has no default.")
      .def_property_readonly(
          "constants", [](const Program& p) { return py::tuple(py::cast(p.constants())); },
          "The constants, in slot order.")
      .def_property_readonly(
          "scalar_code", [](const Program& p) { return instructions(p.scalar_code()); },
          "Once-per-step instructions as (op, a, b, c) with raw 16-bit operands.")
      .def_property_readonly(
          "code", [](const Program& p) { return instructions(p.code()); },
          "Per-element instructions as (op, a, b, c) with raw 16-bit operands.")
      .def_property_readonly(
          "outputs",
          [](const Program& p) {
            py::list out;
            for (Operand o : p.outputs()) out.append(o.bits);
            return py::tuple(out);
          },
          "Raw operands of new p and of each new state.")
      .def_property_readonly("uses_total_steps", &Program::uses_total_steps, "Whether the rule reads T.")
      .def_property_readonly("uses_random", &Program::uses_random, "Whether the rule draws random numbers.")
      .def_property_readonly("has_tensor_scalars", &Program::has_tensor_scalars,
                             "Whether the rule has numbers per tensor: norms and other reductions, or states that are "
                             "one number per tensor.")
      .def(
          "identity", [](const Program& p) { return to_bytes(p.identity()); },
          "All of the bytecode but the rule's name: equal for programs that compute the same thing.")
      .def(
          "eval_scalars",
          [](const Program& p, double step, double total_steps, const std::vector<double>& hypers) {
            if (hypers.size() != p.hypers().size())
              throw std::invalid_argument("hypers has " + std::to_string(hypers.size()) + " values; rule '" + p.name() +
                                          "' takes " + std::to_string(p.hypers().size()));
            std::vector<double> slots(static_cast<size_t>(p.num_scalars()));
            p.eval_scalars(step, total_steps, hypers, slots);
            py::list out;  // not by pybind11, which reports a MemoryError in a vector as a TypeError
            for (const double x : slots) out.append(py::float_(x));
            return out;
          },
          py::arg("step"), py::arg("total_steps"), py::arg("hypers"),
          "The scalars of a step, in double: t, T, hyperparameters, constants, results of scalar_code.")
      .def("disassemble", &Program::disassemble, "Listing of the program, one instruction a line.")
      .def("__len__", [](const Program& p) { return p.code().size(); }, "Number of per-element instructions.");
}

}  // namespace nos::bind
