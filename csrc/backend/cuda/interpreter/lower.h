// Owns DeviceCode: a program in the interpreter's instructions (isa.h). Lowering turns the single-assignment code into
// trees around the accumulator: a value that is read once is computed where it is read, all others get a place.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "../../../program/program.h"
#include "isa.h"

namespace nos::cuda {

struct DeviceCode {
  std::vector<Ins> code;  // without kEnd
  uint32_t reads = 0;     // ProgramRec's masks: the register slots that are loaded before the code runs,
  uint32_t writes = 0;    // and those that are stored after it
  uint32_t overflow = 0;  // number of overflow slots in shared memory
  uint32_t folds = 0;     // number of reductions, if it is a pass
};

// `registers` is how many register slots may hold values. Less than kRegs forces values into overflow slots (for
// tests).
DeviceCode lower(const Program& program, uint32_t registers = kRegs);

// The lowering of a program, made at its first use and kept with it.
std::shared_ptr<const DeviceCode> lowered(const Program& program);

}  // namespace nos::cuda
