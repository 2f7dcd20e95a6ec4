// Owns the prologue of a captured step: the kernel that counts the step up and evaluates every row's scalar code, in
// double, into the step blocks (records.h) of the launches after it. It has one block per row, is a template over a
// context like the interpreter's kernel, and works in three phases with a barrier after each:
//
//   gather    all threads   copy the row's inputs and its code from device memory into shared memory
//   evaluate  one thread    runs the code, from slot to slot
//   publish   all threads   write the slots, rounded once to the type that a launch computes in, into its step block
//
// Every row counts its own steps, so that no block depends on when another one runs.
#pragma once
#include "../../../program/bytecode.h"
#include "../../../program/scalar_code.h"
#include "../common/kind.h"
#include "../common/records.h"

namespace nos::cuda {

inline constexpr uint32_t kRowHypers = bytecode::kMaxHypers;
inline constexpr int kPrologueThreads = 32;  // of a block

struct CapturedHead {
  const double* counter;  // device memory that holds the number of this step; null if this kernel counts the steps
  double factor;
  uint32_t rounding, unused[3];
};
struct CapturedRow {
  uint64_t seed;
  double total_steps;
  uint32_t program, unused;
  double hypers[kRowHypers];
  // Device memory that hyperparameter i is read from, as double if bit i of `wide` is set and else as float. Null means
  // that the value is hypers[i].
  const void* sources[kRowHypers];
  uint64_t wide;
};
static_assert(kRowHypers <= 64);
struct ScalarProgram {
  uint32_t hypers, constants, instructions, unused;
};
struct alignas(8) ScalarInstr {
  uint8_t op, unused;
  uint16_t operand[3];  // scalar ids
};
static_assert(sizeof(CapturedHead) == 32 && sizeof(ScalarProgram) == 16 && sizeof(ScalarInstr) == 8);

// The kernel's argument: pointers into the image of the captured step (image.h).
struct Prologue {
  const CapturedHead* head;
  uint32_t* steps;  // of each row: the number of its last step
  const CapturedRow* rows;
  const ScalarProgram* programs;
  const double* constants;             // `scalars` per program
  const ScalarInstr* code;             // `scalars` per program
  unsigned char* step_blocks[kKinds];  // one for each launch; null beyond the last
  uint32_t wide[kKinds];               // 1 if the launch's scalars are double
  uint32_t num_rows, scalars, row_scalars;
};

// Bytes of shared memory that a block needs: room for slots, then for code.
NOS_HD size_t prologue_shared(const Prologue& a) {
  return a.row_scalars * sizeof(double) + a.scalars * sizeof(ScalarInstr);
}
NOS_HD ScalarInstr* code_room(const Prologue& a, double* slots) {
  return reinterpret_cast<ScalarInstr*>(slots + a.row_scalars);
}

// The number stays at the last one that 32 bits hold: while a graph is replayed, no error can be reported to anyone.
NOS_HD uint32_t next_step(const Prologue& a, uint32_t row) {
  constexpr uint32_t kLast = 0xFFFFFFFF;
  if (!a.head->counter) return a.steps[row] == kLast ? kLast : a.steps[row] + 1;
  return *a.head->counter >= kLast ? kLast : static_cast<uint32_t>(*a.head->counter);
}

NOS_HD double hyper_of(const CapturedRow& row, uint32_t i) {
  if (!row.sources[i]) return row.hypers[i];
  if (row.wide >> i & 1u) return *static_cast<const double*>(row.sources[i]);
  return *static_cast<const float*>(row.sources[i]);
}

template <class Context>
NOS_HD void gather(const Context& ctx, const Prologue& a, uint32_t r, double* slots) {
  const CapturedRow& row = a.rows[r];
  const ScalarProgram program = a.programs[row.program];
  const size_t first = static_cast<size_t>(row.program) * a.scalars;
  double* hypers = slots + bytecode::kFirstHyper;
  double* constants = hypers + program.hypers;
  ScalarInstr* code = code_room(a, slots);
  if (ctx.thread() == 0) {
    slots[bytecode::kStep] = next_step(a, r);
    slots[bytecode::kTotal] = row.total_steps;
  }
  for (uint32_t i = ctx.thread(); i < program.hypers; i += ctx.threads()) hypers[i] = hyper_of(row, i);
  for (uint32_t i = ctx.thread(); i < program.constants; i += ctx.threads()) constants[i] = a.constants[first + i];
  for (uint32_t i = ctx.thread(); i < program.instructions; i += ctx.threads()) code[i] = a.code[first + i];
}

template <class Context>
NOS_HD void evaluate(const Context& ctx, const Prologue& a, uint32_t r, double* slots) {
  if (ctx.thread() != 0) return;
  const ScalarProgram program = a.programs[a.rows[r].program];
  const ScalarInstr* code = code_room(a, slots);
  double* out = slots + bytecode::kFirstHyper + program.hypers + program.constants;
  for (uint32_t i = 0; i < program.instructions; ++i) {
    const ScalarInstr in = code[i];
    out[i] = scalar_op(static_cast<Op>(in.op), slots[in.operand[0]], slots[in.operand[1]], slots[in.operand[2]]);
  }
}

template <class Context>
NOS_HD void publish(const Context& ctx, const Prologue& a, uint32_t r, const double* slots) {
  const CapturedRow& row = a.rows[r];
  const ScalarProgram program = a.programs[row.program];
  const uint32_t count = bytecode::kFirstHyper + program.hypers + program.constants + program.instructions;
  const auto step = static_cast<uint32_t>(slots[bytecode::kStep]);
  if (ctx.thread() == 0) a.steps[r] = step;
  for (int launch = 0; launch < kKinds; ++launch) {
    unsigned char* block = a.step_blocks[launch];
    if (!block) continue;
    auto* heads = reinterpret_cast<RowHead*>(block + sizeof(StepHead));
    const size_t first = static_cast<size_t>(r) * a.row_scalars;
    if (ctx.thread() == 0) {
      heads[r] = {row.seed, static_cast<uint32_t>(first), 0};
      if (r == 0) *reinterpret_cast<StepHead*>(block) = {step, a.head->rounding, a.head->factor};
    }
    auto* narrow = reinterpret_cast<float*>(heads + a.num_rows) + first;
    auto* wide = reinterpret_cast<double*>(heads + a.num_rows) + first;
    for (uint32_t i = ctx.thread(); i < count; i += ctx.threads()) {
      if (a.wide[launch])
        wide[i] = slots[i];
      else
        narrow[i] = static_cast<float>(slots[i]);
    }
  }
}

}  // namespace nos::cuda
