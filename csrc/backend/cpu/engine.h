// Owns the CPU back-end: runs a plan block by block, one SIMD loop per instruction, on OpenMP's threads.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "../backend.h"
#include "interpreter/lower.h"
#include "native/native.h"

namespace nos::cpu {

// Elements [begin, end) of one slice of one tensor: the unit of work of a thread.
struct Chunk {
  uint32_t tensor, slice;
  int64_t begin, end;
};

// For tests and benches: 0 restores the engine's own choice. Results do not depend on any of these.
struct Tuning {
  int block = 0;      // elements per block, a multiple of 4
  int64_t chunk = 0;  // elements per chunk, a multiple of 4
  int threads = 0;
  bool operator==(const Tuning&) const = default;
};

// A plan made ready for this back-end. Several threads may run one at a time. Each has the engine's own floating-point
// environment while it works, and afterwards the caller's again.
struct Prepared final : Job {
  using Job::Job;
  bool serves(std::span<const Program* const> programs) const override;
  void move(const Place&) override {}  // a run reads the plan
  int64_t busy() const override { return work; }
  void get_ready(const StepArgs& args) override;
  void run(const StepArgs& args, std::span<const Program* const> programs, const Place& place = {}) override;

  std::vector<std::shared_ptr<const Lowered>> code;            // one per program
  std::vector<std::shared_ptr<native::NativeProgram>> native;  // one per program; null: interpreted
  std::vector<std::array<DType, kMaxSlots>> layouts;           // choices of dtypes that occur
  std::vector<uint32_t> layout;                                // number of each tensor's choice
  std::vector<Chunk> chunks;
  std::vector<int64_t> work_before;  // ns: estimate of the work before each chunk
  int64_t work;                      // ns: estimate for one thread, with the data in cache
  int block;                         // elements per block
  int threads;                       // 0: as many as the work is worth
  size_t grab;                       // chunks taken at a time
  size_t scratch;                    // bytes per thread
  bool any32, any64;                 // compute types that occur
  Tuning tuning;                     // that it was made under

  // [layout x programs + program]: compiled code, null: interpreted. scaled: the gradient is multiplied by a factor.
  // Made at the first run that needs it.
  const std::vector<const native::NativeCode*>& native_code(bool scaled) const;

  struct Compiled {
    std::once_flag once;
    std::vector<const native::NativeCode*> code;
  };
  mutable std::array<Compiled, 2> compiled;
};

// programs[t.program + slice] is the program of a tensor's slice.
std::shared_ptr<Prepared> prepare(Plan plan, std::span<const Program* const> programs);

void set_tuning(const Tuning& tuning);

}  // namespace nos::cpu
