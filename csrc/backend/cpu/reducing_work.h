// Owns what a call with reductions is made into before any step: the passes of each program as the two tiers run them,
// the slices of tensors that go through them, and where each slice has its numbers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../../plan/plan.h"
#include "../../program/passes.h"
#include "interpreter/lower.h"
#include "kernels.h"
#include "native/native.h"

namespace nos::cpu::reducing {

// A program made ready: its passes, each as the two tiers run it.
struct Code {
  struct Step {
    std::shared_ptr<const Lowered> code;
    std::shared_ptr<native::NativeProgram> native;  // null where it is interpreted
    const Pass* pass = nullptr;                     // null for a program without reductions
    size_t first_global = 0;                        // the number of global reductions in the steps before it
    int num_folds() const { return pass ? static_cast<int>(pass->folds.size()) : 0; }
    bool waits_for_all() const { return pass && pass->waits_for_all; }
  };
  std::shared_ptr<const Passes> passes;  // null for a program without reductions
  std::vector<Step> steps;
  int num_scalars, num_uniforms;
  size_t num_globals = 0;
};

// One slice of one tensor: what goes through the passes.
struct Unit {
  uint32_t tensor, slice;
  uint32_t code;    // of its program, in Work::codes
  size_t uniforms;  // where its numbers begin
  size_t globals;   // where its parts of global reductions begin
  bool shared;      // whether several threads work on it at a time
};

struct Work {
  std::vector<Code> codes;
  std::vector<Unit> units;
  std::vector<size_t> total_of_part;  // of each unit's part of a global reduction: which total it belongs to
  static constexpr size_t kNone = ~size_t{0};
  size_t gradient_norm = kNone;  // which of the totals is the global norm of the gradients
  size_t num_uniforms = 0, num_totals = 0;
  size_t shared_folds = 0, own_folds = 0;  // the most numbers that a step of a unit adds up, where it is shared or not
  ptrdiff_t phases = 1;                    // all wait for all between them
  int64_t elements = 0;
  double cost = 0;  // estimated ns of one run on one thread, with the data in cache
};

// programs[t.program + slice] is the program of a tensor's slice. Threads share a slice from some chunks of so many
// elements on.
Work make_work(const Plan& plan, std::span<const Program* const> programs, int64_t chunk);

// What tells that a program is the one that a job was made of.
std::shared_ptr<const void> kept(const Program& program);

// How many units of a reduction so many elements are.
inline int64_t fold_count(int64_t elements) { return (elements + kFoldUnit - 1) / kFoldUnit; }

}  // namespace nos::cpu::reducing
