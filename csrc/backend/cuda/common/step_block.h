// Owns the writing of a step block (records.h): what changes from step to step, as a launch reads it.
#pragma once
#include <cstddef>

#include "../../../plan/step.h"
#include "kind.h"

namespace nos::cuda {

size_t step_block_bytes(Kind kind, const StepArgs& args);
void write_step_block(Kind kind, const StepArgs& args, unsigned char* out);

}  // namespace nos::cuda
