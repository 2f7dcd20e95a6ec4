// Owns the choice of a back-end by where the tensors are, and the way to CUDA's: the cache of its plans.
#pragma once
#include <pybind11/pybind11.h>

#include <functional>
#include <span>

#include "../backend/cpu/engine.h"
#include "tensors.h"

namespace nos::bind {

// Whether the tensors are on a CUDA device. Throws TensorError in a build without CUDA.
bool on_cuda(const TensorLists& tensors);

// Makes one step on the tensors' device and its current stream ready: what can be wrong with the tensors is found here.
// The result runs it; programs must live until then. group_of: row of each tensor, or empty; population: number of
// slices, or 0.
using RunOnCuda = std::function<void(const cpu::StepArgs&)>;
RunOnCuda ready_on_cuda(std::span<const Program* const> programs, const TensorLists& tensors, uint32_t tensor_index,
                        std::span<const uint32_t> group_of, uint32_t population);

pybind11::dict cuda_info();  // for build_info()

}  // namespace nos::bind
