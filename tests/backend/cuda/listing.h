// Owns the text form of the interpreter's code: one instruction a line.
#pragma once
#include <string>

#include "../../../csrc/backend/cuda/interpreter/lower.h"

namespace nos::cuda {

// What follows the name of an instruction.
enum class Form { plain, at, draw };

struct Row {
  const char* name;
  Form form = Form::plain;
};

inline constexpr Row kRows[] = {
// by opcode
#define NOS_SLOT_MOVE(id) \
  {#id " r0"}, {#id " r1"}, {#id " r2"}, {#id " r3"}, {#id " r4"}, {#id " r5"}, {#id " r6"}, {#id " r7"}, {#id " r8"},
#define NOS_SLOT(id, value) NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value) {#id},
#define NOS_MOVE(id) {#id},
#define NOS_MOVE_AT(id) {#id, Form::at},
#define NOS_DRAW(id) {#id, Form::draw},
#define NOS_FOLD(id) {#id, Form::at},
#include "../../../csrc/backend/cuda/interpreter/isa.def"
#undef NOS_SLOT_MOVE
#undef NOS_SLOT
#undef NOS_ONE
#undef NOS_MOVE
#undef NOS_MOVE_AT
#undef NOS_DRAW
#undef NOS_FOLD
};
static_assert(std::size(kRows) == kEnd);

inline std::string listing(const DeviceCode& code) {
  std::string out;
  for (size_t i = 0; i < code.code.size(); ++i) {
    const Ins in = code.code[i];
    const Row& row = kRows[in.op & ~kScalarFlag];
    out += row.name;
    if (in.op & kScalarFlag) out += " s" + std::to_string(in.arg);
    if (row.form == Form::draw) out += " site " + std::to_string(code.code[++i].op);
    if (row.form == Form::at) out += " " + std::to_string(in.arg);
    out += "\n";
  }
  return out;
}

}  // namespace nos::cuda
