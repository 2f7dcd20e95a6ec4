#include <charconv>

#include "program.h"

namespace nos {
namespace {

std::string number(double x) {  // the shortest text that reads back as the same double
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, x).ptr);
}

}  // namespace

// rule powersign(p, g, m, *, lr, beta=0.9)
//   s4 = sub 1 beta
//   v3 = mul beta m
//   ...
//   p <- v9
//   m <- v5
std::string Program::disassemble() const {
  const auto scalar = [&](int id) -> std::string {
    using namespace bytecode;
    if (id == kStep) return "t";
    if (id == kTotal) return "T";
    if (id < first_constant()) return hypers_[static_cast<size_t>(id - kFirstHyper)].name;
    if (id < first_scalar_instr()) return number(constants_[static_cast<size_t>(id - first_constant())]);
    if (id < num_scalars()) return "s" + std::to_string(id - first_scalar_instr());
    int rest = id - num_scalars();
    for (int s = 0; s < num_states(); ++s)
      if (is_per_tensor(s) && rest-- == 0) return states_[static_cast<size_t>(s)];
    return "n" + std::to_string(rest);
  };
  const auto value = [&](int id) -> std::string {
    using namespace bytecode;
    if (id == kP) return "p";
    if (id == kG) return "g";
    if (id < first_instr_value()) return states_[static_cast<size_t>(id - kFirstState)];
    return "v" + std::to_string(id - first_instr_value());
  };
  const auto operand = [&](Operand o) { return o.is_scalar() ? scalar(o.id()) : value(o.id()); };
  const auto line = [&](const std::string& result, const Instr& i) {
    std::string out = "  " + result + " = " + std::string(info(i.op).name);
    for (int k = 0; k < i.arity(); ++k) out += " " + operand(i.operand(k));
    if (info(i.op).domain == Domain::random) out += "  ; site " + std::to_string(i.site());
    return out + "\n";
  };

  std::string out = "rule " + name_ + "(p, g";
  for (const auto& s : states_) out += ", " + s;
  out += ", *";
  for (const auto& h : hypers_) out += ", " + h.name + (h.has_default ? "=" + number(h.value) : "");
  out += ")\n";
  for (size_t i = 0; i < scalar_code_.size(); ++i) out += line("s" + std::to_string(i), scalar_code_[i]);
  int values = 0, numbers = 0;  // v: one per element, n: one per tensor
  for (const Instr& i : code_)
    out += has_tensor_scalars_ && is_tensor_instr(i) ? line("n" + std::to_string(numbers++), i)
                                                     : line("v" + std::to_string(values++), i);
  for (size_t k = 0; k < outputs_.size(); ++k)
    out += "  " + value(k == 0 ? bytecode::kP : bytecode::kFirstState + static_cast<int>(k) - 1) + " <- " +
           operand(outputs_[k]) + "\n";
  return out;
}

}  // namespace nos
