// A build without tier 2: the interpreter runs every rule.
#include <stdexcept>

#include "jit.h"

namespace nos::cuda::jit {

const Kernel* request(const Program&, const std::array<DType, kMaxSlots>&, Mode mode) {
  if (mode == Mode::always) throw std::runtime_error("jit is \"always\" but this build has no compiled tier; set \"auto\"");
  return nullptr;
}

std::string status() { return "off: not in this build"; }

}  // namespace nos::cuda::jit
