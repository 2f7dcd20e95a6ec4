// Owns the CPU back-end: runs a plan block by block, one SIMD loop per instruction, on OpenMP's threads.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "../../plan/plan.h"
#include "../../program/program.h"
#include "lower.h"
#include "native/native.h"

namespace nos::cpu {

// Elements [begin, end) of one slice of one tensor: the unit of work of a thread.
struct Chunk {
  uint32_t tensor, slice;
  int64_t begin, end;
};

// A plan made ready for this back-end. It may be run many times, as long as the plan's pointers stay valid.
struct Prepared {
  Plan plan;
  std::vector<std::shared_ptr<const Lowered>> code;     // one per program
  std::vector<std::shared_ptr<native::Native>> native;  // one per program; null: interpreted
  std::vector<std::array<DType, kMaxSlots>> layouts;    // choices of dtypes that occur
  std::vector<uint32_t> layout;                         // number of each tensor's choice
  std::vector<Chunk> chunks;
  std::vector<int64_t> work_before;  // ns: estimate of the work before each chunk
  int64_t work;                      // ns: estimate for one thread, with the data in cache
  int block;                         // elements per block
  int threads;                       // 0: as many as the work is worth
  size_t grab;                       // chunks taken at a time
  size_t scratch;                    // bytes per thread
  bool any32, any64;                 // compute types that occur

  // [layout x programs + program]: compiled code, null: interpreted. scaled: the gradient is multiplied by a factor.
  // Made at the first run that needs it.
  const std::vector<const native::Code*>& native_code(bool scaled) const;

  struct Compiled {
    std::once_flag once;
    std::vector<const native::Code*> code;
  };
  mutable std::array<Compiled, 2> compiled;
};

// programs[t.program + slice] is the program of a tensor's slice.
std::shared_ptr<Prepared> prepare(Plan plan, std::span<const Program* const> programs);

struct StepArgs {
  const double* const* rows;  // rows[t.row + slice]: the scalars of Program::eval_scalars
  const size_t* row_sizes;
  size_t num_rows;
  const uint64_t* seeds;             // one per row
  uint32_t step;                     // 1-based; the step of the random key
  double factor;                     // multiplies every gradient: -1 for maximize, 1 / grad_scale
  bool stochastic_rounding = false;  // of results in half precision
};

// Whether the step multiplies the gradients by a factor: the argument of Prepared::native_code.
bool is_scaled(const StepArgs& args);

// Throws std::bad_alloc before the first write, and nothing else. The floating-point environment is the engine's own
// in every thread that works, and the caller's again afterwards.
void run(const Prepared& prepared, const StepArgs& args);

// For tests and benches: 0 restores the engine's own choice. Results do not depend on any of these.
struct Tuning {
  int block = 0;      // elements per block, a multiple of 4
  int64_t chunk = 0;  // elements per chunk, a multiple of 4
  int threads = 0;
  bool operator==(const Tuning&) const = default;
};
void set_tuning(const Tuning& tuning);
const Tuning& tuning();  // what prepare() uses

const char* native_status();  // of the native tier on this machine: its instruction set, or "off: " and why

int max_threads();  // what OpenMP (and so torch.set_num_threads) allows; 1 in a forked child

}  // namespace nos::cpu
