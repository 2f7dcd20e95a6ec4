// Owns the job of programs with reductions: their launches on the stream of the call (reducing/image.h). The host waits
// for nothing.
#pragma once
#include <memory>
#include <span>

#include "../../backend.h"

namespace nos::cuda {

// Some of the programs have reductions. The place's device must be the current one.
std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs, const Place& place);

}  // namespace nos::cuda
