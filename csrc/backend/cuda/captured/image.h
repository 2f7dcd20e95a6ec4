// Owns the memory image of a captured step: everything that its two kernels read, at fixed places, so that a CUDA graph
// made of them stays valid while rules, hyperparameters, seeds and the step change. It is pure host code; the device
// holds a copy of the image.
//
//   prologue     counts the step up and writes the step blocks (prologue.h)
//   interpreter  is launched once for each batch (common/batches.h), as in a step that is not captured
//
// Where a rule has reductions, the image ends with the step block that the prologue writes: what reads it is launched
// by another image (reducing/image.h), and no other rule can be loaded.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "../../captured.h"
#include "../common/batches.h"
#include "../interpreter/program_table.h"
#include "prologue.h"

namespace nos::cuda {

class CapturedImage {
 public:
  // row_program[r] is the program whose scalars row r holds. Throws std::invalid_argument when a program does not fit.
  CapturedImage(const Plan& plan, std::span<const Program* const> programs, std::span<const uint32_t> row_program,
                Capacity capacity, int blocks_at_once, int64_t chunk = 0);

  size_t bytes() const { return bytes_; }
  size_t initialised() const { return blocks_[0].at; }      // bytes that the device needs before the first step
  void attach(unsigned char* host, unsigned char* device);  // memory of bytes() each; fills the host's

  struct Range {
    size_t first, bytes;
  };
  // The step block that passes are given, in double; null where no rule has reductions.
  const unsigned char* given() const { return has_passes_ ? device_ + blocks_[0].at : nullptr; }
  bool has_passes() const { return has_passes_; }

  // Each of these changes the host's copy and returns what changed. The caller copies that to the device.
  std::vector<Range> load(uint32_t program_number, const Program& program);
  Range set_row(uint32_t r, uint64_t seed, double total_steps, std::span<const double> hypers,
                std::span<const void* const> sources = {}, uint64_t wide = 0);
  Range set_head(uint32_t steps_done, double factor, Rounding rounding = Rounding::nearest,
                 const double* counter = nullptr);
  static constexpr size_t step_at() { return sizeof(CapturedHead); }  // byte offset of row 0's number of its last step

  const std::vector<Batch>& batches() const { return batches_; }
  uint32_t programs() const { return static_cast<uint32_t>(table_.programs.size()); }
  const Capacity& capacity() const { return capacity_; }
  uint32_t rows() const { return static_cast<uint32_t>(row_program_.size()); }
  Prologue prologue() const;
  Launch launch(size_t batch, size_t code_room) const;

 private:
  struct StepBlock {
    size_t at;
    bool wide;
  };
  std::vector<Range> write(uint32_t program_number, const Program& program);
  std::vector<Range> write_scalar_code(uint32_t program_number, const Program& program);
  void check_fits(const Program& program, const DeviceCode& code) const;
  template <class T>
  T* host(size_t at) const {
    return reinterpret_cast<T*>(host_ + at);
  }
  template <class T>
  T* device(size_t at) const {
    return reinterpret_cast<T*>(device_ + at);
  }

  const bool has_passes_;
  std::vector<Batch> batches_;
  ProgramTable table_;  // of the programs that the step begins with
  Capacity capacity_;
  std::vector<const Program*> first_programs_;  // until attach()
  std::vector<uint32_t> row_program_;
  uint32_t row_scalars_;
  size_t rows_at_, scalar_programs_at_, programs_at_, code_at_, constants_at_, scalar_code_at_, bytes_;
  std::vector<size_t> tensors_at_, chunks_at_;  // per batch
  std::vector<StepBlock> blocks_;               // per batch, or that of the passes
  unsigned char *host_ = nullptr, *device_ = nullptr;
};

}  // namespace nos::cuda
