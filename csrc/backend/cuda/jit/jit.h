// Owns the question whether there is a compiled kernel for a program. Such a kernel replaces the interpreter and gives
// the same bits. It takes the same Launch, of which it does not read programs, code and code_room.
#pragma once
#include <array>
#include <string>

#include "../../../plan/plan.h"
#include "../../../program/program.h"

namespace nos::cuda::jit {

enum class Mode { automatic, always, never };

// The mode of this process. It is `never` until somebody sets another one; the environment variable NOS_JIT (auto,
// always, never) does so at the start. A wrong value there throws std::invalid_argument at the first use.
Mode mode();
void set_mode(Mode mode);

struct Kernel {
  const void* function;  // a cudaKernel_t of the current device, as cudaLaunchKernel takes it
  int threads;           // per block; no dynamic shared memory
};

// The kernel of a program whose slots have these dtypes, for the current device, or null while (or because) there is
// none. In the mode automatic the call is counted, may start a compilation in the background, and returns at once. In
// the mode always it compiles now, and throws std::runtime_error with the reason and the remedy where that is
// impossible. In the mode never there is no kernel. It is called once per launch, on any thread; once it is settled, an
// answer takes less than a microsecond. What it returns lives as long as the process.
const Kernel* request(const Program& program, const std::array<DType, kMaxSlots>& dtypes, Mode mode);

// For build_info(): "NVRTC 13.0", or "off: " and why.
std::string status();

}  // namespace nos::cuda::jit
