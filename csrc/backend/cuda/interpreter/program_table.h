// Owns ProgramTable: the programs of a call in the interpreter's code, as records that its launches read.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../../../program/program.h"
#include "../common/records.h"
#include "lower.h"

namespace nos::cuda {

struct ProgramTable {
  std::vector<ProgramRec> programs;
  std::vector<Ins> code;                                   // of all programs, one after the other
  std::vector<std::shared_ptr<const DeviceCode>> lowered;  // of each program; keeps addresses from being reused
  uint32_t longest = 0;                                    // instructions of the longest program, with its end
  uint32_t overflow = 0;                                   // the most overflow slots that a program has
};

// A null pointer stands for a program that is never run. registers: see lower().
ProgramTable program_table(std::span<const Program* const> programs, uint32_t registers = kRegs);

}  // namespace nos::cuda
