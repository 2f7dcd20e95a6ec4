// Owns the CPU back-end. It runs a plan block by block on OpenMP's threads, by the native tier's machine code where
// there is some and by the interpreter elsewhere.
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

// Elements [begin, end) of one slice of one tensor. A chunk is the unit of work that a thread takes.
struct Chunk {
  uint32_t tensor, slice;
  int64_t begin, end;
};

// Settings for tests and benches. 0 leaves the choice to the engine. Results do not depend on any of them. Where states
// are quantized, blocks and chunks are whole blocks of scales.
struct Tuning {
  int block = 0;      // elements per block, a multiple of 4
  int64_t chunk = 0;  // elements per chunk, a multiple of 4
  int threads = 0;
  bool operator==(const Tuning&) const = default;
};

// A plan made ready for this back-end. Several threads may run the same one at the same time. Each sets the engine's
// floating-point environment while it works, and restores the caller's afterwards.
struct Prepared final : Job {
  using Job::Job;
  bool serves(std::span<const Program* const> programs) const override;
  void move(const Place&) override {}  // nothing to do: a run reads the addresses in the plan
  int64_t busy() const override { return work; }
  void get_ready(const StepArgs& args) override;
  void run(const StepArgs& args, std::span<const Program* const> programs, const Place& place = {}) override;

  std::vector<std::shared_ptr<const Lowered>> code;            // one for each program
  std::vector<std::shared_ptr<native::NativeProgram>> native;  // one for each program; null where it is interpreted
  std::vector<std::array<DType, kMaxSlots>> layouts;           // the choices of dtypes that occur, one dtype per slot
  std::vector<uint32_t> layout;                                // of each tensor: the index of its choice of dtypes
  std::vector<Chunk> chunks;
  std::vector<int64_t> work_before;  // of each chunk: estimated ns of work before it
  int64_t work;                      // estimated ns of one run on one thread, with the data in cache
  int block;                         // elements per block
  int threads;                       // 0 for as many as the work is worth
  size_t grab;                       // number of chunks that a thread takes at a time
  size_t scratch;                    // bytes per thread
  bool any32, any64;                 // whether tensors are computed in float, in double
  Tuning tuning;                     // the settings that the job was made under

  // The machine code of program p for choice of dtypes k stands at [k * number of programs + p], null where it is
  // interpreted. The code is made at the first run that needs it.
  const std::vector<const native::NativeCode*>& native_code(native::StepKind kind) const;

  struct Compiled {
    std::once_flag once;
    std::vector<const native::NativeCode*> code;
  };
  mutable std::array<Compiled, native::StepKind::kCount> compiled;
};

// programs[t.program + slice] is the program of a tensor's slice.
std::shared_ptr<Prepared> prepare(Plan plan, std::span<const Program* const> programs);

void set_tuning(const Tuning& tuning);
const Tuning& tuning();

}  // namespace nos::cpu
