#include "program_table.h"

#include <algorithm>

namespace nos::cuda {

ProgramTable program_table(std::span<const Program* const> programs, uint32_t registers) {
  ProgramTable out;
  for (const Program* p : programs) {
    if (!p) {
      out.programs.push_back({});
      out.lowered.push_back(nullptr);
      continue;
    }
    auto code = registers == kRegs ? lowered(*p) : std::make_shared<const DeviceCode>(lower(*p, registers));
    const auto length = static_cast<uint32_t>(code->code.size());
    out.programs.push_back({static_cast<uint32_t>(out.code.size()), length, code->reads, code->writes});
    out.code.insert(out.code.end(), code->code.begin(), code->code.end());
    out.longest = std::max(out.longest, length + 1);
    out.overflow = std::max(out.overflow, code->overflow);
    out.lowered.push_back(std::move(code));
  }
  return out;
}

}  // namespace nos::cuda
