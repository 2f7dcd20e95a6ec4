// The text form of device code. Tests build it; the module has no use for it.
#include <string>

#include "isa.h"
#include "lower.h"

namespace nos::cuda {
namespace {

constexpr const char* kSlotNames[] = {
#define NOS_SLOT(id, value) #id,
#define NOS_SLOT_MOVE(id) #id,
#define NOS_ONE(id, value)
#define NOS_MOVE(id)
#include "isa.def"
#undef NOS_SLOT
#undef NOS_SLOT_MOVE
#undef NOS_ONE
#undef NOS_MOVE
};
constexpr const char* kOneNames[] = {
#define NOS_SLOT(id, value)
#define NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value) #id,
#define NOS_MOVE(id) #id,
#include "isa.def"
};

}  // namespace

std::string listing(const DeviceCode& code) {
  std::string out;
  for (size_t i = 0; i < code.code.size(); ++i) {
    const Ins in = code.code[i];
    const uint32_t op = in.op & ~kScalarFlag;
    if (op < kSlotOps * kRegs)
      out += std::string(kSlotNames[op / kRegs]) + " r" + std::to_string(op % kRegs);
    else
      out += kOneNames[op - kSlotOps * kRegs];
    if (in.op & kScalarFlag) out += " s" + std::to_string(in.arg);
    const bool draws = op == k1_drop || op == k1_normal;
    if (draws) out += " site " + std::to_string(code.code[++i].op);
    if (op >= k1_ldx && op <= k1_stm) out += " " + std::to_string(in.arg);
    out += "\n";
  }
  return out;
}

}  // namespace nos::cuda
