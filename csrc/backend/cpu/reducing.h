// Owns the run of programs with reductions on the CPU: a slice of a tensor goes through the passes of its program, so
// that what fits the cache is read from memory once; before a pass that needs a global reduction, all wait for all.
#pragma once
#include <memory>
#include <span>

#include "../backend.h"

namespace nos::cpu {

// Some of the programs have reductions; the others are one pass. programs[t.program + slice] is the program of a
// tensor's slice.
std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs);

}  // namespace nos::cpu
