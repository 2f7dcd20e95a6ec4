// Owns Passes: a program with reductions as a chain of sweeps over the elements of a tensor. Each pass computes what
// its reductions need and adds it up; arithmetic between the numbers of a tensor follows, in double; the last pass
// writes the results. A later pass recomputes what an earlier one had computed, from the same inputs and so with the
// same bits.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "fold.h"
#include "program.h"
#include "scalar_code.h"

namespace nos {

// A reduction of the program, made of what a pass has added up.
struct Reduced {
  Op op;     // of domain reduce or global
  int fold;  // which of the pass
  int id;    // of the tensor scalar, among the uniforms
};

// A per-tensor instruction that is arithmetic, and the tensor scalar that it defines.
struct TensorInstr {
  Instr instr;
  int id;
};

struct Pass {
  // Its code has reductions of the ops sum, dot and max_abs: fold k is the k-th of them. They define nothing. A slot
  // that the pass does not write has its own old value as the output.
  Program body;
  std::vector<Fold> folds;
  std::vector<Reduced> reduced;
  std::vector<TensorInstr> then;
  bool waits_for_all = false;  // whether a reduction is global: then no tensor goes on before all have come so far
};

class Passes {
 public:
  // With `early`, a state whose new value the first passes compute anyway is written there and read back by the later
  // ones. That is right only where the state is stored in the type that its tensor is computed in.
  Passes(const Program& program, bool early);

  std::vector<Pass> passes;
  std::vector<TensorInstr> before;      // what the passes begin with: arithmetic of states that are numbers
  std::vector<int> early;               // the states that are written before the last pass
  std::vector<int> per_tensor;          // the states that are kept as one number per tensor
  std::vector<Operand> per_tensor_new;  // their new values
  int num_scalars, num_uniforms;

 private:
  class Builder;
};

// The passes of a program that has reductions, made at their first use and kept with it.
std::shared_ptr<const Passes> passes_of(const Program& program, bool early);

inline bool is_global(const Reduced& r) { return info(r.op).domain == Domain::global; }

// What tells that two tensors have parts of one global reduction: the slice, and the program with the number of its
// tensor scalar, or what is done with p and g alone, which is one for all programs. Such a reduction is of the first
// pass in all of them, since it needs no other one.
using GlobalKey = std::tuple<uint32_t, const void*, int, uint16_t, uint16_t>;
inline constexpr GlobalKey kGradientNorm{0, nullptr, static_cast<int>(Op::global_norm), bytecode::kG, bytecode::kG};

// The key of a global reduction of a pass. `program` is what tells programs apart.
GlobalKey global_key(const void* program, uint32_t slice, const Pass& pass, const Reduced& reduced);

// What an op of a pass's reductions does.
Fold fold_of(Op op);

// The slots of the states that are one number per tensor, a bit each. Throws std::invalid_argument where one program
// keeps a state as a number and another one has it for every element.
uint32_t number_slots(std::span<const Program* const> programs);

// Does arithmetic between the numbers of a tensor, in place. The floating-point environment must be the engine's.
void evaluate(const std::vector<TensorInstr>& code, double* uniforms);

}  // namespace nos
