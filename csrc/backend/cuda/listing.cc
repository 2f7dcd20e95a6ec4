// The text form of device code. Tests build it; the module has no use for it.
#include <string>

#include "isa.h"
#include "lower.h"

namespace nos::cuda {
namespace {

enum class Kind { plain, at, draw };

struct Row {
  const char* name;
  Kind kind = Kind::plain;
};

constexpr Row kRows[] = {
// by opcode
#define NOS_SLOT_MOVE(id) \
  {#id " r0"}, {#id " r1"}, {#id " r2"}, {#id " r3"}, {#id " r4"}, {#id " r5"}, {#id " r6"}, {#id " r7"}, {#id " r8"},
#define NOS_SLOT(id, value) NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value) {#id},
#define NOS_MOVE(id) {#id},
#define NOS_MOVE_AT(id) {#id, Kind::at},
#define NOS_DRAW(id) {#id, Kind::draw},
#include "isa.def"
};
static_assert(std::size(kRows) == kEnd);

}  // namespace

std::string listing(const DeviceCode& code) {
  std::string out;
  for (size_t i = 0; i < code.code.size(); ++i) {
    const Ins in = code.code[i];
    const Row& row = kRows[in.op & ~kScalarFlag];
    out += row.name;
    if (in.op & kScalarFlag) out += " s" + std::to_string(in.arg);
    if (row.kind == Kind::draw) out += " site " + std::to_string(code.code[++i].op);
    if (row.kind == Kind::at) out += " " + std::to_string(in.arg);
    out += "\n";
  }
  return out;
}

}  // namespace nos::cuda
