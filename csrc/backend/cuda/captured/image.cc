#include "image.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../common/cursor.h"

namespace nos::cuda {
namespace {

template <class T>
void put(T* to, const T* from, size_t count) {
  if (count) std::memcpy(to, from, count * sizeof(T));  // memcpy takes no null pointers
}

constexpr uint32_t kMostScalars = std::max(bytecode::kMaxConstants, bytecode::kMaxScalarCode);
constexpr uint32_t kMostRowScalars = bytecode::kFirstHyper + kRowHypers + 2 * kMostScalars;
static_assert(kMostRowScalars * sizeof(double) + kMostScalars * sizeof(ScalarInstr) <= 48 * 1024,
              "the prologue's shared memory is what a block gets unasked");

bool have_reductions(std::span<const Program* const> programs) {
  return std::ranges::any_of(programs, &Program::has_tensor_scalars);
}

// What the interpreter of a step without passes runs.
ProgramTable table_of(std::span<const Program* const> programs) {
  const std::vector<const Program*> none(programs.size());
  return program_table(have_reductions(programs) ? std::span(none) : programs);
}

// See Capacity.
Capacity filled(Capacity capacity, std::span<const Program* const> programs, const ProgramTable& table) {
  capacity.scalars = std::min(capacity.scalars, kMostScalars);
  if (capacity.instructions && !have_reductions(programs)) return capacity;
  capacity = {table.longest, 0, table.overflow};
  for (const Program* p : programs)
    capacity.scalars = static_cast<uint32_t>(
        std::max({static_cast<size_t>(capacity.scalars), p->constants().size(), p->scalar_code().size()}));
  return capacity;
}

}  // namespace

CapturedImage::CapturedImage(const Plan& plan, std::span<const Program* const> programs,
                             std::span<const uint32_t> row_program, Capacity capacity, int blocks_at_once,
                             int64_t chunk)
    : has_passes_(have_reductions(programs)),
      batches_(has_passes_ ? std::vector<Batch>() : batches_of(plan, blocks_at_once, chunk)),
      table_(table_of(programs)),
      capacity_(filled(capacity, programs, table_)),
      first_programs_(programs.begin(), programs.end()),
      row_program_(row_program.begin(), row_program.end()),
      row_scalars_(bytecode::kFirstHyper + kRowHypers + 2 * capacity_.scalars) {
  for (size_t k = 0; k < programs.size() && !has_passes_; ++k) check_fits(*programs[k], *table_.lowered[k]);
  Cursor c;
  c.array<CapturedHead>(1);
  c.array<uint32_t>(rows());  // at step_at()
  rows_at_ = c.array<CapturedRow>(rows());
  scalar_programs_at_ = c.array<ScalarProgram>(programs.size());
  programs_at_ = c.array<ProgramRec>(programs.size());
  code_at_ = c.array<Ins>(programs.size() * capacity_.instructions);
  constants_at_ = c.array<double>(programs.size() * capacity_.scalars);
  scalar_code_at_ = c.array<ScalarInstr>(programs.size() * capacity_.scalars);
  for (const Batch& batch : batches_) {
    tensors_at_.push_back(c.array<TensorRec>(batch.tensors.size()));
    chunks_at_.push_back(c.array<ChunkRec>(batch.chunks.size()));
  }
  for (const Batch& batch : batches_) blocks_.push_back({0, batch.kind == Kind::f64});
  if (has_passes_) blocks_.push_back({0, true});
  for (StepBlock& block : blocks_)
    block.at =
        c.array<unsigned char>(sizeof(StepHead) + rows() * (sizeof(RowHead) + row_scalars_ * (block.wide ? 8u : 4u)));
  bytes_ = c.bytes();
}

void CapturedImage::check_fits(const Program& program, const DeviceCode& code) const {
  const auto refuse = [&](const char* what, size_t has, size_t room, const char* argument) {
    throw std::invalid_argument("rule '" + program.name() + "' has " + std::to_string(has) + " " + what +
                                " and the captured step has room for " + std::to_string(room) +
                                "; make it with a larger " + argument + "=");
  };
  if (code.code.size() + 1 > capacity_.instructions)
    refuse("device instructions", code.code.size() + 1, capacity_.instructions, "max_instructions");
  if (code.overflow > capacity_.temporaries)
    refuse("temporaries beyond the registers", code.overflow, capacity_.temporaries, "max_temporaries");
  if (program.constants().size() > capacity_.scalars)
    refuse("constants", program.constants().size(), capacity_.scalars, "max_scalars");
  if (program.scalar_code().size() > capacity_.scalars)
    refuse("scalar instructions", program.scalar_code().size(), capacity_.scalars, "max_scalars");
}

void CapturedImage::attach(unsigned char* host_memory, unsigned char* device_memory) {
  host_ = host_memory;
  device_ = device_memory;
  std::memset(host_, 0, bytes_);
  for (uint32_t r = 0; r < rows(); ++r) host<CapturedRow>(rows_at_)[r].program = row_program_[r];
  for (size_t k = 0; k < first_programs_.size(); ++k) write(static_cast<uint32_t>(k), *first_programs_[k]);
  first_programs_.clear();
  for (size_t i = 0; i < batches_.size(); ++i) {
    const Batch& batch = batches_[i];
    put(host<TensorRec>(tensors_at_[i]), batch.tensors.data(), batch.tensors.size());
    put(host<ChunkRec>(chunks_at_[i]), batch.chunks.data(), batch.chunks.size());
  }
}

// Another program may have other passes, and the launches of a captured step are fixed.
std::vector<CapturedImage::Range> CapturedImage::load(uint32_t k, const Program& program) {
  if (has_passes_ || program.has_tensor_scalars())
    throw TensorError("rule '" + program.name() + "' cannot be loaded, as " +
                      (has_passes_ ? "a rule of this captured step" : "it") +
                      " has reductions, and steps of such rules keep the launches that they were captured with; make "
                      "another captured step for it");
  return write(k, program);
}

std::vector<CapturedImage::Range> CapturedImage::write(uint32_t k, const Program& program) {
  if (has_passes_) return write_scalar_code(k, program);
  const std::shared_ptr<const DeviceCode> code = lowered(program);
  check_fits(program, *code);
  std::vector<Range> changed = write_scalar_code(k, program);
  const auto length = static_cast<uint32_t>(code->code.size());
  const size_t first = static_cast<size_t>(k) * capacity_.instructions;
  host<ProgramRec>(programs_at_)[k] = {static_cast<uint32_t>(first), length, code->reads, code->writes};
  put(host<Ins>(code_at_) + first, code->code.data(), length);
  changed.push_back({programs_at_ + k * sizeof(ProgramRec), sizeof(ProgramRec)});
  changed.push_back({code_at_ + first * sizeof(Ins), length * sizeof(Ins)});
  return changed;
}

std::vector<CapturedImage::Range> CapturedImage::write_scalar_code(uint32_t k, const Program& program) {
  const size_t scalars = static_cast<size_t>(k) * capacity_.scalars;
  host<ScalarProgram>(scalar_programs_at_)[k] = {static_cast<uint32_t>(program.hypers().size()),
                                                 static_cast<uint32_t>(program.constants().size()),
                                                 static_cast<uint32_t>(program.scalar_code().size()), 0};
  put(host<double>(constants_at_) + scalars, program.constants().data(), program.constants().size());
  ScalarInstr* out = host<ScalarInstr>(scalar_code_at_) + scalars;
  for (const Instr& i : program.scalar_code()) {
    *out = {static_cast<uint8_t>(i.op), 0, {0, 0, 0}};
    for (int o = 0; o < i.arity(); ++o) out->operand[o] = static_cast<uint16_t>(i.operand(o).id());
    ++out;
  }
  return {{scalar_programs_at_ + k * sizeof(ScalarProgram), sizeof(ScalarProgram)},
          {constants_at_ + scalars * sizeof(double), program.constants().size() * sizeof(double)},
          {scalar_code_at_ + scalars * sizeof(ScalarInstr), program.scalar_code().size() * sizeof(ScalarInstr)}};
}

CapturedImage::Range CapturedImage::set_row(uint32_t r, uint64_t seed, double total_steps,
                                            std::span<const double> hypers, std::span<const void* const> sources,
                                            uint64_t wide) {
  CapturedRow& row = host<CapturedRow>(rows_at_)[r];
  row.seed = seed;
  row.total_steps = total_steps;
  put(row.hypers, hypers.data(), hypers.size());
  std::fill(std::begin(row.sources), std::end(row.sources), nullptr);
  put(row.sources, sources.data(), sources.size());
  row.wide = wide;
  return {rows_at_ + r * sizeof(CapturedRow), sizeof(CapturedRow)};
}

CapturedImage::Range CapturedImage::set_head(uint32_t steps_done, double factor, Rounding rounding,
                                             const double* counter) {
  *host<CapturedHead>(0) = {counter, factor, static_cast<uint32_t>(rounding), {}};
  std::fill_n(host<uint32_t>(step_at()), rows(), steps_done);
  return {0, step_at() + rows() * sizeof(uint32_t)};
}

Prologue CapturedImage::prologue() const {
  Prologue p{};
  p.head = device<CapturedHead>(0);
  p.steps = device<uint32_t>(step_at());
  p.rows = device<CapturedRow>(rows_at_);
  p.programs = device<ScalarProgram>(scalar_programs_at_);
  p.constants = device<double>(constants_at_);
  p.code = device<ScalarInstr>(scalar_code_at_);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    p.step_blocks[i] = device_ + blocks_[i].at;
    p.wide[i] = blocks_[i].wide;
  }
  p.num_rows = rows();
  p.scalars = capacity_.scalars;
  p.row_scalars = row_scalars_;
  return p;
}

Launch CapturedImage::launch(size_t i, size_t code_room) const {
  Launch l{};
  l.tensors = device<TensorRec>(tensors_at_[i]);
  l.chunks = device<ChunkRec>(chunks_at_[i]);
  l.programs = device<ProgramRec>(programs_at_);
  l.code = device<Ins>(code_at_);
  l.step_block = device_ + blocks_[i].at;
  l.rows = rows();
  l.chunk_elements = batches_[i].chunk_elements;
  l.code_room = static_cast<uint32_t>(code_room);
  return l;
}

}  // namespace nos::cuda
