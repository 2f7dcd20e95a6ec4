// Owns the memory image of a captured step: everything that its two kernels read, at fixed places, so that a CUDA graph
// made of them stays valid while rules, hyperparameters, seeds and the step change. Pure host code; the device holds a
// copy of the image.
//
//   prologue     step += 1; evaluates every row's scalar code in double and writes the step blocks (tables.h)
//   interpreter  one launch per kind of tensors, as in job.h
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "../../program/scalar_code.h"
#include "job.h"

namespace nos::cuda {

// Room that later rules may use. 0 instructions: what the first rules need, for a step that loads no other.
struct Capacity {
  uint32_t instructions = 512;  // of device code, per program
  uint32_t scalars = 128;       // constants, and instructions of scalar code, per program
  uint32_t temporaries = 4;     // overflow slots
};

inline constexpr uint32_t kRowHypers = bytecode::kMaxHypers;

struct CapturedHead {
  uint32_t step;  // of the last step; the prologue counts it up
  uint32_t stochastic_rounding;
  double factor;
  const double* counter;  // device memory with the number of this step, counted by somebody else; null: counted here
  uint64_t unused;
};
struct CapturedRow {
  uint64_t seed;
  double total_steps;
  uint32_t program, unused;
  double hypers[kRowHypers];
  // Device memory that a hyperparameter is read from, as float, or as double where bit i of `wide` is set; null: above.
  const void* sources[kRowHypers];
  uint64_t wide;
};
static_assert(kRowHypers <= 64);
struct ScalarProgram {
  uint32_t hypers, constants, instructions, unused;
};
struct ScalarInstr {
  uint8_t op, unused;
  uint16_t operand[3];  // scalar ids
};
static_assert(sizeof(CapturedHead) == 32 && sizeof(ScalarProgram) == 16 && sizeof(ScalarInstr) == 8);

// The prologue's argument. Pointers into the image.
struct Prologue {
  CapturedHead* head;
  const CapturedRow* rows;
  const ScalarProgram* programs;
  const double* constants;        // capacity.scalars per program
  const ScalarInstr* code;        // capacity.scalars per program
  double* work;                   // row_scalars per row
  unsigned char* step_blocks[3];  // by part; null beyond
  uint32_t wide[3];               // 1: the part's scalars are double
  uint32_t num_rows, scalars, row_scalars, unused;
};

// Stays at the last number that 32 bits hold: a graph that is replayed has nobody to tell.
NOS_HD uint32_t next_step(const Prologue& a) {
  constexpr uint32_t kLast = 0xFFFFFFFF;
  if (!a.head->counter) return a.head->step == kLast ? kLast : a.head->step + 1;
  return *a.head->counter >= kLast ? kLast : static_cast<uint32_t>(*a.head->counter);
}

NOS_HD double hyper_of(const CapturedRow& row, uint32_t i) {
  if (!row.sources[i]) return row.hypers[i];
  if (row.wide >> i & 1u) return *static_cast<const double*>(row.sources[i]);
  return *static_cast<const float*>(row.sources[i]);
}

// One row of a step, by one thread.
NOS_HD void evaluate_row(const Prologue& a, uint32_t r, uint32_t step) {
  const CapturedRow& row = a.rows[r];
  const ScalarProgram program = a.programs[row.program];
  double* slots = a.work + static_cast<size_t>(r) * a.row_scalars;
  const double* constants = a.constants + static_cast<size_t>(row.program) * a.scalars;
  const ScalarInstr* code = a.code + static_cast<size_t>(row.program) * a.scalars;
  uint32_t n = 0;
  slots[n++] = step;
  slots[n++] = row.total_steps;
  for (uint32_t i = 0; i < program.hypers; ++i) slots[n++] = hyper_of(row, i);
  for (uint32_t i = 0; i < program.constants; ++i) slots[n++] = constants[i];
  for (uint32_t i = 0; i < program.instructions; ++i) {
    const ScalarInstr in = code[i];
    slots[n] = scalar_op(static_cast<Op>(in.op), slots[in.operand[0]], slots[in.operand[1]], slots[in.operand[2]]);
    ++n;
  }
  for (int part = 0; part < 3; ++part) {
    unsigned char* block = a.step_blocks[part];
    if (!block) continue;
    if (r == 0) *reinterpret_cast<StepHead*>(block) = {step, a.head->stochastic_rounding, a.head->factor};
    auto* heads = reinterpret_cast<RowHead*>(block + sizeof(StepHead));
    heads[r] = {row.seed, r * a.row_scalars, 0};
    auto* narrow = reinterpret_cast<float*>(heads + a.num_rows) + static_cast<size_t>(r) * a.row_scalars;
    auto* wide = reinterpret_cast<double*>(heads + a.num_rows) + static_cast<size_t>(r) * a.row_scalars;
    for (uint32_t i = 0; i < n; ++i) {
      if (a.wide[part])
        wide[i] = slots[i];
      else
        narrow[i] = static_cast<float>(slots[i]);
    }
  }
}

class CapturedImage {
 public:
  // row_program[r]: the program whose scalars row r holds. Throws std::invalid_argument when a program does not fit.
  CapturedImage(const Plan& plan, std::span<const Program* const> programs, std::span<const uint32_t> row_program,
                Capacity capacity, int blocks_at_once, int64_t chunk = 0);

  size_t bytes() const { return bytes_; }
  size_t initialised() const { return work_at_; }  // bytes from the start that must be copied to the device at first
  void attach(unsigned char* host, unsigned char* device);  // of bytes(); fills the host's

  struct Range {
    size_t first, bytes;
  };
  // Each changes the host's copy and returns what changed; the caller copies it to the device.
  std::vector<Range> load(uint32_t program_number, const Program& program);
  Range set_row(uint32_t r, uint64_t seed, double total_steps, std::span<const double> hypers,
                std::span<const void* const> sources = {}, uint64_t wide = 0);
  Range set_head(uint32_t steps_done, double factor, bool stochastic_rounding = false, const double* counter = nullptr);
  static constexpr size_t step_at() { return 0; }  // byte offset of CapturedHead::step

  const Job& job() const { return job_; }
  const Capacity& capacity() const { return capacity_; }
  uint32_t rows() const { return static_cast<uint32_t>(row_program_.size()); }
  uint32_t program_of(uint32_t r) const { return row_program_[r]; }
  Prologue prologue() const;
  Launch launch(size_t part, size_t code_room) const;

 private:
  void check_fits(const Program& program, const DeviceCode& code) const;
  template <class T>
  T* host(size_t at) const {
    return reinterpret_cast<T*>(host_ + at);
  }
  template <class T>
  T* device(size_t at) const {
    return reinterpret_cast<T*>(device_ + at);
  }

  Job job_;
  Capacity capacity_;
  std::vector<const Program*> first_programs_;  // until attach()
  std::vector<uint32_t> row_program_;
  uint32_t row_scalars_;
  size_t rows_at_, scalar_programs_at_, programs_at_, code_at_, constants_at_, scalar_code_at_, work_at_, bytes_;
  std::vector<size_t> tensors_at_, chunks_at_, blocks_at_;  // per part
  unsigned char *host_ = nullptr, *device_ = nullptr;
};

}  // namespace nos::cuda
