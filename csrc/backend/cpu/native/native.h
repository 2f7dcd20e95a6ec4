// Owns the native tier: a program compiled to fused loops of machine code, with the interpreter's kernels in between,
// for fp32 arithmetic on x86-64 machines with AVX-512 or AVX2. Same bits as the interpreter, NaN payloads aside.
//
// Scalar row of a step, in floats:
//   | scalars of the program, rounded | factor of the gradient | tables, 16 each | divisors, 3 each |
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "../../../plan/plan.h"
#include "../../../program/program.h"
#include "code_memory.h"
#include "graph.h"
#include "stages.h"

namespace nos::cpu::native {

using Loop = void(char* const* slots, float* scratch, const float* scalars, int64_t n);

// A program for one choice of the slots' dtypes.
struct Code {
  CodeMemory memory;
  std::vector<Stage> stages;
  std::vector<Loop*> loops;  // by Stage::index
  int num_slots = 0, num_scratch = 0;
  bool usable = false;       // false when the system refused executable memory
  bool single_loop = false;  // one fused loop and nothing else: it may run over a whole chunk at once
};

class Native {
 public:
  explicit Native(const Program& program);

  // The code for these dtypes, compiled at its first use; null when the system gives no executable memory.
  // scaled: the gradient is multiplied by the factor.
  const Code* code(const std::array<DType, kMaxSlots>& dtypes, bool scaled);

  double cost() const { return cost_; }  // estimated ns per element on one thread, data in cache

  size_t row_size() const { return static_cast<size_t>(native::row_size(graph_)); }
  void fill_row(const double* scalars, float factor, float* row) const;

 private:
  struct Variant {
    uint64_t key;
    Code code;
  };

  const Graph graph_;
  double cost_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Variant>> variants_;
};

// The native form of a program, made at its first use and kept with it; null when this machine has no native tier.
std::shared_ptr<Native> native_of(const Program& program);

// Compiles without keeping the result, for benches and checks of the code itself.
Code compile(const Graph& graph, const DType* dtypes, Target target, std::vector<uint8_t>* bytes = nullptr);

// What the tier does on this machine, for people: "avx512", "avx2", or "off: " and why.
const char* status();

}  // namespace nos::cpu::native
