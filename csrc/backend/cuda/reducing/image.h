// Owns the memory image of programs with reductions: everything that their kernels read, and in which order these are
// launched. It is pure host code; the device holds a copy of the image.
//
//   begin            every piece gets its numbers (between.h)
//   for each pass:
//     interpreter    is launched once for each batch (common/batches.h), with the pieces that have the pass
//     first_level, finish, join   make the numbers of what the pass has added up
//
// Programs without reductions have one pass, and may stand beside the others in one call.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../../../program/passes.h"
#include "../common/batches.h"
#include "../interpreter/program_table.h"
#include "../interpreter/shape.h"
#include "records.h"

namespace nos::cuda {

class ReducingImage {
 public:
  // shared_limit: see block_shape(). `chunk` is as for batches_of, but a multiple of kFoldUnit.
  ReducingImage(const Plan& plan, std::span<const Program* const> programs, int blocks_at_once, size_t shared_limit,
                int64_t chunk = 0, uint32_t registers = kRegs);

  // The image has three parts. Tensors change when gradients move, scratch memory belongs to the device alone.
  size_t fixed_bytes() const { return fixed_bytes_; }
  size_t tensor_bytes() const { return tensor_bytes_; }
  size_t scratch_bytes() const { return scratch_bytes_; }
  void write_fixed(unsigned char* host) const;
  void write_tensors(unsigned char* host) const;
  void move(const Plan& plan);  // takes over the addresses of its gradients

  // A launch of the interpreter over the pieces of one batch that have one pass.
  struct Sweep {
    Kind kind;
    bool folds;  // whether the pass has reductions, and so needs the kernel that has them
    size_t batch, pass;
    std::vector<ChunkRec> chunks;
    Shape shape;
    size_t chunks_at;
  };
  struct Pass {
    std::vector<Sweep> sweeps;
    ProgramTable table;
    uint32_t first_turn, turns, first_group, groups;
    int finish_threads;
    uint32_t parts;  // blocks of first_level per turn; 0: there is none
    size_t programs_at, code_at;
  };
  const std::vector<Pass>& passes() const { return passes_; }
  uint32_t pieces() const { return static_cast<uint32_t>(pieces_.size()); }

  // Where the parts are, and the step block of a call, in double.
  struct Memory {
    unsigned char *fixed, *tensors, *scratch;
    const unsigned char* given;
    uint32_t given_rows;
  };
  Between between(const Memory& memory, uint32_t first = 0, uint32_t done = 0) const;
  Launch launch(const Memory& memory, const Sweep& sweep) const;

 private:
  struct Stages {
    uint32_t first;
    std::shared_ptr<const Passes> passes;  // null for a program without reductions
    size_t count() const { return passes ? passes->passes.size() : 1; }
  };
  void add_stages(std::span<const Program* const> programs);
  void add_pieces(const Plan& plan, std::span<const Program* const> programs);
  void add_pass(size_t pass, std::span<const Program* const> programs, size_t shared_limit, uint32_t registers);
  void add_turns(Pass& out, size_t pass);
  void add_group(std::span<const uint32_t> waiting, size_t pass);
  void lay_out();
  Plan with_pieces(Plan plan) const;

  std::vector<Batch> batches_;
  std::vector<Stages> programs_;
  std::vector<uint32_t> program_of_, slice_of_, first_piece_;  // of pieces, of pieces, of tensors
  std::vector<PieceRec> pieces_;
  std::vector<NumberRec> states_;
  std::vector<StageRec> stages_;
  std::vector<uint8_t> folds_;
  std::vector<ReducedRec> reduced_;
  std::vector<NumberIns> code_;
  std::vector<TurnRec> turns_;
  std::vector<PartRec> parts_;
  std::vector<TotalRec> joined_;
  std::vector<GroupRec> groups_;
  std::vector<Pass> passes_;
  std::vector<uint32_t> number_slots_;  // of each tensor of the plan
  uint32_t num_numbers_ = 0;
  size_t num_sums_ = 0, num_totals_ = 0;
  size_t pieces_at_ = 0, states_at_ = 0, stages_at_ = 0, folds_at_ = 0, reduced_at_ = 0, instructions_at_ = 0,
         turns_at_ = 0, parts_at_ = 0, joined_at_ = 0, groups_at_ = 0, fixed_bytes_ = 0;
  std::vector<size_t> tensors_at_;  // of each batch
  size_t tensor_bytes_ = 0, sums_at_ = 0, totals_at_ = 0, scratch_bytes_ = 0;
};

}  // namespace nos::cuda
