// Owns the native tier, which compiles a program to fused loops of machine code with the interpreter's kernels in
// between. It serves fp32 arithmetic on x86-64 machines with AVX-512 or AVX2, and computes the interpreter's bits, NaN
// payloads aside.
// docs/native.md explains it.
//
// The scalar row of a step, in floats:
//   | scalars of the program, rounded | factor of the gradient | tables, 16 each | divisors, 3 each |
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "../../../plan/plan.h"
#include "../../../plan/step.h"
#include "../../../program/program.h"
#include "assemble.h"
#include "graph.h"
#include "x86/code_memory.h"

namespace nos::cpu::native {

using LoopFunction = void(char* const* slots, float* scratch, const float* scalars, int64_t n);

// A program for one choice of the slots' dtypes, ready to run.
struct NativeCode {
  x86::CodeMemory memory;
  std::vector<Stage> stages;
  std::vector<LoopFunction*> loops;  // by Stage::index
  int num_slots = 0, num_scratch = 0;
  bool usable = false;  // false when the system has refused executable memory
  bool single_loop =
      false;  // true for one fused loop, or one reduction of slots, which may run over a whole chunk at once
};

// Makes the code executable. num_slots is that of the graph from which it was assembled.
NativeCode load(Assembly assembly, int num_slots);

// What code depends on besides program and dtypes: whether the gradient is multiplied by the factor, and how results
// are rounded that are not stored in fp32.
struct StepKind {
  bool scaled;
  Rounding rounding;
  static constexpr size_t kCount = 8;
  constexpr size_t index() const { return static_cast<size_t>(rounding) << 1 | static_cast<size_t>(scaled); }
};

class NativeProgram {
 public:
  explicit NativeProgram(const Program& program);

  // The code for these dtypes, which is compiled at its first use. Null when the system gives no executable memory.
  const NativeCode* code_for(const std::array<DType, kMaxSlots>& dtypes, StepKind kind);

  double cost() const { return cost_; }  // estimated ns per element on one thread, with the data in cache

  size_t row_size() const { return static_cast<size_t>(native::row_size(graph_)); }
  void fill_row(const double* scalars, float factor, float* row) const noexcept;

 private:
  struct Variant {
    uint64_t key;
    NativeCode code;
  };

  const Graph graph_;
  double cost_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Variant>> variants_;
};

// The native form of a program, which is made at its first use and kept with the program. Null when this machine has no
// native tier.
std::shared_ptr<NativeProgram> native_of(const Program& program);

// What build_info() says of the tier on this machine: "avx512", "avx2", or "off: " and why.
const char* status();

}  // namespace nos::cpu::native
