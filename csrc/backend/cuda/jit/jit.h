// Owns the question to tier 2: is there a kernel compiled for this program? It runs in the place of the interpreter,
// with the same tables, the same Launch argument and the same bits; only Launch::programs, code and code_room are not
// read.
#pragma once
#include <array>
#include <string>

#include "../../../plan/plan.h"
#include "../../../program/program.h"

namespace nos::cuda::jit {

enum class Mode { automatic, always, never };

// The setting of the process. The environment variable NOS_JIT (auto, always, never) sets it at the start; a wrong
// value there throws std::invalid_argument at the first use.
Mode mode();
void set_mode(Mode mode);

struct Kernel {
  const void* function;  // what cudaLaunchKernel and cudaFuncGetAttributes take: a cudaKernel_t of the current device
  int threads;           // per block; no dynamic shared memory
};

// The kernel of a program whose slots all have these dtypes, for the current device, or null while (or because) there
// is none. automatic: counts the call, may start compilation in the background, returns at once. always: compiles now
// and throws std::runtime_error with the reason and the remedy when that is impossible. never: null.
// Called once per launch, on any thread; a steady-state answer takes less than a microsecond. The result lives as long
// as the process.
const Kernel* request(const Program& program, const std::array<DType, kMaxSlots>& dtypes, Mode mode);

// For build_info(): "NVRTC 13.0", or "off: " and why.
std::string status();

}  // namespace nos::cuda::jit
