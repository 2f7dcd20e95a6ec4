// Assembles what test_machine_code.py asks for, one instruction per line of stdin, and writes its bytes in hex.
//
//   vex NAME REG V RM IMMEDIATE WIDE        evex NAME REG V RM IMMEDIATE MASK ZERO BROADCAST BYTES
//   general NAME NUMBER RM
//
// RM is `r NUMBER`, `m BASE INDEX SCALE DISPLACEMENT` with index 255 for none, or `c`, a constant of the assembler's.
#include <cstdio>
#include <iostream>
#include <map>
#include <string>

#include "../../csrc/backend/cpu/native/x86/assembler.h"

using namespace nos::cpu::native::x86;

namespace {

const std::map<std::string, Opcode> kOpcodes = {
#define NOS_OPCODE(mnemonic, ...) {#mnemonic, mnemonic},
#include "../../csrc/backend/cpu/native/x86/opcodes.def"
#undef NOS_OPCODE
};

struct Operand {
  bool in_register;
  int number;
  Address address;
};

int number() {
  int n;
  std::cin >> n;
  return n;
}

Operand operand(Assembler& out) {
  std::string kind;
  std::cin >> kind;
  if (kind == "r") return {true, number(), {}};
  if (kind == "c") return {false, 0, out.constant(1, 8)};
  const int base = number(), index = number(), scale = number(), disp = number();
  return {
      false, 0, {static_cast<uint8_t>(base), static_cast<uint8_t>(index), static_cast<uint8_t>(scale), false, disp}};
}

void vector(Assembler& out, bool evex) {
  std::string name;
  std::cin >> name;
  const Opcode op = kOpcodes.at(name);
  const int reg = number(), v = number();
  const Operand rm = operand(out);
  const int immediate = number();
  if (!evex) {
    const bool wide = number() != 0;
    rm.in_register ? out.vex(op, reg, v, rm.number, immediate, wide) : out.vex(op, reg, v, rm.address, immediate, wide);
    return;
  }
  EvexFlags f;
  f.mask = static_cast<uint8_t>(number());
  f.zero = number() != 0;
  f.broadcast = number() != 0;
  f.memory = static_cast<uint8_t>(number());
  rm.in_register ? out.evex(op, reg, v, rm.number, f, immediate) : out.evex(op, reg, v, rm.address, f, immediate);
}

void general(Assembler& out) {
  std::string name;
  std::cin >> name;
  const int n = number();
  const auto r = static_cast<Gpr>(n);
  const Operand rm = operand(out);
  const auto other = static_cast<Gpr>(rm.number);
  if (name == "push") return out.push(r);
  if (name == "pop") return out.pop(r);
  if (name == "mov") return out.mov(r, other);
  if (name == "sub") return out.sub(r, other);
  if (name == "cmp") return out.cmp(r, other);
  if (name == "load") return out.load(r, rm.address);
  if (name == "lea") return out.lea(r, rm.address);
  if (name == "add_number") return out.add(other, n);
  if (name == "sub_number") return out.sub(other, n);
  if (name == "align_down") return out.align_down(other, n);
  if (name == "zero") return out.zero(r);
  if (name == "ret") return out.ret();
  if (name == "vzeroupper") return out.vzeroupper();
  throw std::out_of_range(name);
}

}  // namespace

int main() {
  std::string kind;
  while (std::cin >> kind) {
    Assembler out;
    kind == "general" ? general(out) : vector(out, kind == "evex");
    const auto size = static_cast<size_t>(out.here());
    const std::vector<uint8_t> bytes = out.finish();
    for (size_t i = 0; i < size; ++i) std::printf("%02x", bytes[i]);
    std::printf("\n");
  }
}
