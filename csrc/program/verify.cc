// Checks everything that a program must satisfy beyond the layout of its bytes. docs/validation.md points here.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "names.h"
#include "program.h"

namespace nos {
namespace {

[[noreturn]] void fail(const std::string& what) { throw BytecodeError("bytecode: " + what); }

void check_names(const std::string& name, const std::vector<std::string>& states, const std::vector<Hyper>& hypers) {
  std::set<std::string_view> seen;
  const auto check = [&](NameOf of, const std::string& s) {
    if (const std::string problem = name_problem(of, s); !problem.empty()) fail(quoted(s) + " " + problem);
    if (of != NameOf::rule && !seen.insert(s).second) fail("the name " + quoted(s) + " is used twice");
  };
  check(NameOf::rule, name);
  for (const auto& s : states) check(NameOf::state, s);
  for (const auto& h : hypers) check(NameOf::hyperparameter, h.name);
  if (hypers.empty() || hypers[0].name != "lr" || hypers[0].has_default)
    fail("the first hyperparameter must be lr, without a default");
  for (size_t i = 1; i < hypers.size(); ++i)
    if (!hypers[i].has_default) fail("hyperparameter '" + hypers[i].name + "' has no default");
}

}  // namespace

void Program::verify() const {
  check_names(name_, states_, hypers_);
  for (double c : constants_)
    if (std::isnan(c)) fail("a constant is NaN");
  for (const Hyper& h : hypers_)
    if (std::isnan(h.value)) fail("the default of hyperparameter '" + h.name + "' is NaN");

  const auto at = [](const char* section, size_t pc, Op op) {
    return std::string(section) + " " + std::to_string(pc) + " (" + std::string(info(op).name) + "): ";
  };
  // An operand is defined when its id is below the number of ids defined so far.
  const auto check_operand = [](const std::string& where, Operand o, int values, int scalars) {
    if (o.is_scalar() ? o.id() >= scalars : o.id() >= values)
      fail(where + (o.is_scalar() ? "scalar " : "value ") + std::to_string(o.id()) + " is not defined yet");
  };

  int scalars = first_scalar_instr();
  for (size_t pc = 0; pc < scalar_code_.size(); ++pc) {
    const Instr& i = scalar_code_[pc];
    const std::string where = at("scalar instruction", pc, i.op);
    if (info(i.op).domain == Domain::random) fail(where + "a random op works on tensors only");
    if (is_reduction(i.op)) fail(where + "a reduction works on tensors only");
    for (int k = 0; k < 3; ++k) {
      if (k >= i.arity()) {
        if (i.operand(k).bits != 0) fail(where + "an unused operand must be 0");
        continue;
      }
      if (!i.operand(k).is_scalar()) fail(where + "reads a per-element value");
      check_operand(where, i.operand(k), 0, scalars);
    }
    ++scalars;
  }

  int values = first_instr_value();
  int uniforms = scalars;  // scalars, then tensor scalars
  const auto check_value = [&](const std::string& where, Operand o) {
    check_operand(where, o, values, uniforms);
    if (!o.is_scalar() && o.id() >= bytecode::kFirstState && o.id() < first_instr_value() &&
        is_per_tensor(o.id() - bytecode::kFirstState))
      fail(where + "reads state " + quoted(states_[static_cast<size_t>(o.id() - bytecode::kFirstState)]) +
           ", one number per tensor, as a per-element value");
  };
  uniforms += static_cast<int>(std::ranges::count(per_tensor_, true));
  std::set<int> sites;
  bool any_reduction = false;
  for (size_t pc = 0; pc < code_.size(); ++pc) {
    const Instr& i = code_[pc];
    const OpInfo& op = info(i.op);
    const std::string where = at("instruction", pc, i.op);
    const bool random = op.domain == Domain::random, reduction = is_reduction(i.op);
    const bool per_tensor = has_tensor_scalars_ && is_tensor_instr(i);
    any_reduction |= reduction;
    if (reduction && !has_tensor_scalars_) fail(where + "a reduction needs version 2");
    if (op.domain == Domain::scalar && !per_tensor) fail(where + "works on scalars only");
    bool any_value = false;
    for (int k = 0; k < 3; ++k) {
      const Operand o = i.operand(k);
      if (k >= op.arity) {
        if (!(random && k == 2) && o.bits != 0) fail(where + "an unused operand must be 0");
        continue;
      }
      check_value(where, o);
      if (reduction && o.is_scalar()) fail(where + "a reduction reads per-element values only");
      any_value |= !o.is_scalar();
    }
    if (random) {
      if (i.site() >= bytecode::kMaxSites) fail(where + "site " + std::to_string(i.site()) + " is out of range");
      if (!sites.insert(i.site()).second) fail(where + "site " + std::to_string(i.site()) + " is used twice");
      const Operand parameter = i.operand(op.arity - 1);  // prob of drop, std of normal
      if (!parameter.is_scalar()) fail(where + "its last operand must be a scalar");
    } else if (!any_value && !per_tensor) {
      fail(where + "reads scalars only; it belongs in the scalar code");
    }
    ++(per_tensor ? uniforms : values);
  }
  if (has_tensor_scalars_ && !any_reduction && std::ranges::count(per_tensor_, true) == 0)
    fail("version 2 is for programs with reductions or states that are one number per tensor, and there is neither");
  for (size_t k = 0; k < outputs_.size(); ++k) {
    const std::string where = "output " + std::to_string(k) + ": ";
    const Operand o = outputs_[k];
    check_value(where, o);
    const bool tensor_scalar = o.is_scalar() && o.id() >= num_scalars();
    const bool one_number = k > 0 && is_per_tensor(static_cast<int>(k) - 1);
    if (tensor_scalar && !one_number) fail(where + "is one number per tensor, but p or the state is not");
    if (one_number && !o.is_scalar()) fail(where + "is a per-element value, but the state is one number per tensor");
  }
}

}  // namespace nos
