// Owns Passes: a program with reductions as a chain of sweeps over the elements of a tensor. Each pass computes what
// its reductions need and adds it up; arithmetic between the numbers of a tensor follows, in double; the last pass
// writes the results. A later pass recomputes what an earlier one had computed, from the same inputs and so with the
// same bits.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "program.h"

namespace nos {

// How values are added up: their sum, the sum of their products, the largest of their magnitudes.
enum class Fold : uint8_t { sum, dot, max_abs };

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
const Passes& passes_of(const Program& program, bool early);

// The reduction of `op` over `count` elements, given what was added up.
double finished(Op op, double total, double count);

// Does arithmetic between the numbers of a tensor, in place. The floating-point environment must be the engine's.
void evaluate(const std::vector<TensorInstr>& code, double* uniforms);

}  // namespace nos
