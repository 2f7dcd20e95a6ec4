// Owns the job of programs with reductions on a device (device_passes.h).
#pragma once
#include <memory>
#include <span>

#include "../../backend.h"

namespace nos::cuda {

// Some of the programs have reductions. The place's device must be the current one.
std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs, const Place& place);

}  // namespace nos::cuda
