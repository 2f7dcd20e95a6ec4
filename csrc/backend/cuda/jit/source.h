// Owns the way from a program to the CUDA C++ text of its kernel. It is pure host code.
#pragma once
#include <array>
#include <string>
#include <string_view>

#include "../../../plan/plan.h"
#include "../../../program/program.h"

namespace nos::cuda::jit {

// What NVRTC reads before the text of a rule: the headers that loop.h needs, and loop.h, in one piece; and its SHA-256.
extern const std::string_view kPrelude, kPreludeHash;

// Every kernel is a `void nos_rule(const Launch)` and has this many threads per block.
inline constexpr const char* kKernelName = "nos_rule";
inline constexpr int kThreads = 256;

// Returns the text of one rule for slots of these dtypes. The text holds no number of the program, since constants and
// hyperparameters are read from the scalar row. So programs that differ only in numbers share their text and one
// kernel. The text is empty where a state is quantized, since only the interpreter reads codes, and when the dtypes mix
// float64 with others, which no plan does.
std::string source_of(const Program& program, const std::array<DType, kMaxSlots>& dtypes);

}  // namespace nos::cuda::jit
