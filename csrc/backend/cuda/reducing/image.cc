#include "image.h"

#include <algorithm>
#include <map>

#include "../common/cursor.h"
#include "../interpreter/fold.h"
#include "between.h"

namespace nos::cuda {
namespace {

uint16_t small(int id) { return static_cast<uint16_t>(id); }

NumberIns instruction(const TensorInstr& t) {
  NumberIns out{static_cast<uint16_t>(t.instr.op), small(t.id), {0, 0, 0}, 0};
  for (int k = 0; k < t.instr.arity(); ++k) out.operand[k] = small(t.instr.operand(k).id());
  return out;
}

}  // namespace

ReducingImage::ReducingImage(const Plan& plan, std::span<const Program* const> programs, int blocks_at_once,
                             size_t shared_limit, int64_t chunk, uint32_t registers) {
  add_stages(programs);
  add_pieces(plan, programs);
  batches_ = batches_of(with_pieces(plan), blocks_at_once, chunk);
  size_t most = 0;
  for (const Stages& s : programs_) most = std::max(most, s.count());
  for (size_t pass = 0; pass < most; ++pass) add_pass(pass, programs, shared_limit, registers);
  lay_out();
}

// The stages of a program are those before its first pass and after each.
void ReducingImage::add_stages(std::span<const Program* const> programs) {
  for (const Program* program : programs) {
    programs_.push_back(
        {static_cast<uint32_t>(stages_.size()), program->has_tensor_scalars() ? passes_of(*program, false) : nullptr});
    const auto add = [&](const std::vector<TensorInstr>& code) {
      StageRec stage{};
      stage.first_fold = static_cast<uint32_t>(folds_.size());
      stage.first_reduced = static_cast<uint32_t>(reduced_.size());
      stage.first_code = static_cast<uint32_t>(code_.size());
      stage.code = static_cast<uint32_t>(code.size());
      for (const TensorInstr& t : code) code_.push_back(instruction(t));
      stages_.push_back(stage);
    };
    const Passes* passes = programs_.back().passes.get();
    add(passes ? passes->before : std::vector<TensorInstr>());
    if (!passes) continue;
    size_t last = stages_.size() - 1;  // the stage after which all numbers are known
    for (const nos::Pass& pass : passes->passes) {
      add(pass.then);
      StageRec& stage = stages_.back();
      stage.folds = static_cast<uint32_t>(pass.folds.size());
      stage.reduced = static_cast<uint32_t>(pass.reduced.size());
      stage.waits = pass.waits_for_all;
      for (const Fold fold : pass.folds) folds_.push_back(static_cast<uint8_t>(fold));
      int globals = 0;
      for (const Reduced& r : pass.reduced)
        reduced_.push_back(
            {static_cast<uint16_t>(r.op), small(r.fold), small(r.id), small(is_global(r) ? ++globals : 0)});
      if (stage.folds) last = stages_.size() - 1;
    }
    stages_[last].ends = 1;
  }
}

void ReducingImage::add_pieces(const Plan& plan, std::span<const Program* const> programs) {
  for (const PlannedTensor& t : plan.tensors) {
    first_piece_.push_back(pieces());
    number_slots_.push_back(number_slots(programs.subspan(t.program, t.slices)));
    for (uint32_t slice = 0; slice < t.slices; ++slice) {
      const uint32_t number = t.program + slice;
      const Program& program = *programs[number];
      const Stages& stages = programs_[number];
      PieceRec piece{};
      piece.numel = t.numel;
      piece.row = t.row + slice;
      piece.scalars = static_cast<uint32_t>(program.num_scalars());
      piece.first = num_numbers_;
      piece.sums = static_cast<uint32_t>(num_sums_);
      piece.stage = stages.first;
      piece.states = static_cast<uint32_t>(states_.size());
      piece.wide = is_wide(t);
      for (size_t i = 0; stages.passes && i < stages.passes->per_tensor.size(); ++i) {
        const auto slot = static_cast<size_t>(stages.passes->per_tensor[i]) + bytecode::kFirstState;
        const DType dtype = t.dtype[slot];
        auto* data =
            static_cast<char*>(t.data[slot]) + static_cast<size_t>(slice) * static_cast<size_t>(size_of(dtype));
        states_.push_back({data, static_cast<uint32_t>(dtype), small(program.num_scalars() + static_cast<int>(i)),
                           small(stages.passes->per_tensor_new[i].id())});
        ++piece.num_states;
      }
      size_t folds = 0;
      for (size_t pass = 0; stages.passes && pass < stages.count(); ++pass)
        folds = std::max(folds, stages.passes->passes[pass].folds.size());
      num_sums_ += folds * static_cast<size_t>(fold_numbers(t.numel));
      num_numbers_ += static_cast<uint32_t>(program.num_uniforms());
      pieces_.push_back(piece);
      program_of_.push_back(number);
      slice_of_.push_back(slice);
    }
  }
}

// The plan as the interpreter sees it: each piece has a row, and states that are numbers are not there.
Plan ReducingImage::with_pieces(Plan plan) const {
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    PlannedTensor& t = plan.tensors[i];
    t.row = first_piece_[i];
    for (size_t s = 0; s < kMaxSlots; ++s)
      if (number_slots_[i] >> s & 1) {
        t.data[s] = nullptr;
        t.dtype[s] = is_wide(t) ? DType::f64 : DType::f32;
      }
  }
  return plan;
}

void ReducingImage::move(const Plan& plan) { move_tensors(batches_, with_pieces(plan)); }

void ReducingImage::add_pass(size_t pass, std::span<const Program* const> programs, size_t shared_limit,
                             uint32_t registers) {
  std::vector<const Program*> bodies;
  bool folds = false;
  for (size_t k = 0; k < programs.size(); ++k) {
    const Stages& s = programs_[k];
    const bool has = pass < s.count();
    bodies.push_back(!has ? nullptr : s.passes ? &s.passes->passes[pass].body : programs[k]);
    folds |= has && s.passes && !s.passes->passes[pass].folds.empty();
  }
  Pass out{};
  out.table = program_table(bodies, registers);
  for (size_t b = 0; b < batches_.size(); ++b) {
    const Batch& batch = batches_[b];
    Sweep sweep{batch.kind, folds, b, pass, {}, {}, 0};
    int64_t longest = 0;
    for (const ChunkRec& c : batch.chunks) {
      const TensorRec& t = batch.tensors[c.tensor];
      if (pass >= programs_[t.program + c.slice].count()) continue;
      sweep.chunks.push_back(c);
      longest = std::max(longest, std::min<int64_t>(batch.chunk_elements, t.numel));
    }
    if (sweep.chunks.empty()) continue;
    sweep.shape = block_shape(batch.kind, out.table.longest, out.table.overflow, longest, shared_limit, folds);
    out.sweeps.push_back(std::move(sweep));
  }
  add_turns(out, pass);
  passes_.push_back(std::move(out));
}

// The pieces whose pass adds something up. Those that wait come last, slice by slice.
void ReducingImage::add_turns(Pass& out, size_t pass) {
  std::vector<std::vector<uint32_t>> waiting;
  int64_t most_units = 1;
  out.first_turn = static_cast<uint32_t>(turns_.size());
  out.first_group = static_cast<uint32_t>(groups_.size());
  for (uint32_t p = 0; p < pieces(); ++p) {
    const Stages& s = programs_[program_of_[p]];
    const auto stage = static_cast<uint32_t>(pieces_[p].stage + 1 + pass);
    if (pass >= s.count() || !s.passes || !stages_[stage].folds) continue;
    most_units = std::max(most_units, fold_units(fold_units(pieces_[p].numel)));
    if (!stages_[stage].waits) {
      turns_.push_back({p, stage, 0});
      continue;
    }
    waiting.resize(std::max<size_t>(waiting.size(), slice_of_[p] + 1));
    waiting[slice_of_[p]].push_back(p);
  }
  for (const std::vector<uint32_t>& group : waiting)
    if (!group.empty()) add_group(group, pass);
  out.turns = static_cast<uint32_t>(turns_.size()) - out.first_turn;
  out.groups = static_cast<uint32_t>(groups_.size()) - out.first_group;
  out.finish_threads = static_cast<int>(std::min<int64_t>(most_units * 32, kMostFinishThreads));
  constexpr int64_t kAtOnce = kLevelThreads / 32;  // units of a block of first_level
  const int64_t parts = std::min<int64_t>((most_units + kAtOnce - 1) / kAtOnce, kMostParts);
  out.parts = parts > 1 ? static_cast<uint32_t>(parts) : 0;
}

// A slice's pieces that wait after a pass, and the global reductions that they have parts of.
void ReducingImage::add_group(std::span<const uint32_t> waiting, size_t pass) {
  GroupRec group{static_cast<uint32_t>(turns_.size()), static_cast<uint32_t>(waiting.size()),
                 static_cast<uint32_t>(joined_.size()), 0};
  const size_t first_part = parts_.size();
  std::map<GlobalKey, uint32_t> known;  // numbers of joined_
  for (const uint32_t p : waiting) {
    const Passes* passes = programs_[program_of_[p]].passes.get();
    turns_.push_back({p, static_cast<uint32_t>(pieces_[p].stage + 1 + pass), static_cast<uint32_t>(parts_.size())});
    for (const Reduced& reduced : passes->passes[pass].reduced) {
      if (!is_global(reduced)) continue;
      const auto [at, is_new] = known.try_emplace(global_key(passes, slice_of_[p], passes->passes[pass], reduced),
                                                  static_cast<uint32_t>(joined_.size()));
      if (is_new) joined_.push_back({0, 0});
      parts_.push_back({joined_[at->second].count++, at->second});  // where among its parts, and of which reduction
    }
  }
  group.totals = static_cast<uint32_t>(joined_.size()) - group.first_total;
  groups_.push_back(group);
  for (uint32_t i = group.first_total; i < joined_.size(); ++i) {
    joined_[i].first = static_cast<uint32_t>(num_totals_);
    num_totals_ += joined_[i].count;
  }
  for (PartRec& part : std::span(parts_).subspan(first_part)) {
    const uint32_t first = joined_[part.total].first;
    part = {first + part.at, first};
  }
}

void ReducingImage::lay_out() {
  Cursor fixed;
  pieces_at_ = fixed.array<PieceRec>(pieces_.size());
  states_at_ = fixed.array<NumberRec>(states_.size());
  stages_at_ = fixed.array<StageRec>(stages_.size());
  folds_at_ = fixed.array<uint8_t>(folds_.size());
  reduced_at_ = fixed.array<ReducedRec>(reduced_.size());
  instructions_at_ = fixed.array<NumberIns>(code_.size());
  turns_at_ = fixed.array<TurnRec>(turns_.size());
  parts_at_ = fixed.array<PartRec>(parts_.size());
  joined_at_ = fixed.array<TotalRec>(joined_.size());
  groups_at_ = fixed.array<GroupRec>(groups_.size());
  for (Pass& pass : passes_) {
    pass.programs_at = fixed.array<ProgramRec>(pass.table.programs.size());
    pass.code_at = fixed.array<Ins>(pass.table.code.size());
    for (Sweep& sweep : pass.sweeps) sweep.chunks_at = fixed.array<ChunkRec>(sweep.chunks.size());
  }
  fixed_bytes_ = fixed.bytes();

  Cursor tensors;
  for (const Batch& batch : batches_) tensors_at_.push_back(tensors.array<TensorRec>(batch.tensors.size()));
  tensor_bytes_ = tensors.bytes();

  Cursor scratch;  // begins with the step block
  scratch.array<unsigned char>(sizeof(StepHead) + pieces_.size() * sizeof(RowHead) +
                               num_numbers_ * (sizeof(double) + sizeof(float)));
  sums_at_ = scratch.array<double>(num_sums_);
  totals_at_ = scratch.array<double>(num_totals_);
  scratch_bytes_ = scratch.bytes();
}

void ReducingImage::write_fixed(unsigned char* host) const {
  put(host, pieces_at_, pieces_);
  put(host, states_at_, states_);
  put(host, stages_at_, stages_);
  put(host, folds_at_, folds_);
  put(host, reduced_at_, reduced_);
  put(host, instructions_at_, code_);
  put(host, turns_at_, turns_);
  put(host, parts_at_, parts_);
  put(host, joined_at_, joined_);
  put(host, groups_at_, groups_);
  for (const Pass& pass : passes_) {
    put(host, pass.programs_at, pass.table.programs);
    put(host, pass.code_at, pass.table.code);
    for (const Sweep& sweep : pass.sweeps) put(host, sweep.chunks_at, sweep.chunks);
  }
}

void ReducingImage::write_tensors(unsigned char* host) const {
  for (size_t i = 0; i < batches_.size(); ++i) put(host, tensors_at_[i], batches_[i].tensors);
}

Between ReducingImage::between(const Memory& memory, uint32_t first, uint32_t done) const {
  Between b{};
  b.pieces = reinterpret_cast<const PieceRec*>(memory.fixed + pieces_at_);
  b.states = reinterpret_cast<const NumberRec*>(memory.fixed + states_at_);
  b.stages = reinterpret_cast<const StageRec*>(memory.fixed + stages_at_);
  b.folds = memory.fixed + folds_at_;
  b.reduced = reinterpret_cast<const ReducedRec*>(memory.fixed + reduced_at_);
  b.code = reinterpret_cast<const NumberIns*>(memory.fixed + instructions_at_);
  b.turns = reinterpret_cast<const TurnRec*>(memory.fixed + turns_at_);
  b.parts = reinterpret_cast<const PartRec*>(memory.fixed + parts_at_);
  b.joined = reinterpret_cast<const TotalRec*>(memory.fixed + joined_at_);
  b.groups = reinterpret_cast<const GroupRec*>(memory.fixed + groups_at_);
  b.given = memory.given;
  b.step_block = memory.scratch;
  b.sums = reinterpret_cast<double*>(memory.scratch + sums_at_);
  b.totals = reinterpret_cast<double*>(memory.scratch + totals_at_);
  b.given_rows = memory.given_rows;
  b.num_pieces = pieces();
  b.num_numbers = num_numbers_;
  b.first = first;
  b.done = done;
  return b;
}

Launch ReducingImage::launch(const Memory& memory, const Sweep& sweep) const {
  const Pass& pass = passes_[sweep.pass];
  Launch l{};
  l.tensors = reinterpret_cast<const TensorRec*>(memory.tensors + tensors_at_[sweep.batch]);
  l.chunks = reinterpret_cast<const ChunkRec*>(memory.fixed + sweep.chunks_at);
  l.programs = reinterpret_cast<const ProgramRec*>(memory.fixed + pass.programs_at);
  l.code = reinterpret_cast<const Ins*>(memory.fixed + pass.code_at);
  l.step_block = memory.scratch;
  l.rows = pieces();
  l.chunk_elements = batches_[sweep.batch].chunk_elements;
  l.code_room = static_cast<uint32_t>(sweep.shape.code_room);
  l.sums = reinterpret_cast<double*>(memory.scratch + sums_at_);
  return l;
}

}  // namespace nos::cuda
