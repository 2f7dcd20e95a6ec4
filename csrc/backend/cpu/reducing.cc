#include "reducing.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <new>
#include <vector>

#include "../../ops/convert.h"
#include "../../ops/float_environment.h"
#include "../../program/passes.h"
#include "engine.h"
#include "interpreter/block_runner.h"
#include "native/runner.h"
#include "reducing_work.h"
#include "threads.h"

namespace nos::cpu {
namespace {

using namespace reducing;

// A call of so many elements is taken to stay in cache between its passes, and has longer blocks.
constexpr int64_t kInCacheElements = int64_t{2} << 20;
constexpr int kInCacheBlock = 512, kFromMemoryBlock = kFoldUnit;  // whole units of reductions
constexpr int64_t kChunk = 64 * 1024;                             // elements of a slice that several threads share
static_assert(kFoldUnit % kScaleBlock == 0);                      // so that blocks of scales are whole in them, too

template <class T>
size_t to_line(size_t count) {
  return (count * sizeof(T) + kLine - 1) / kLine * kLine;
}

// Reads a state that is one number per tensor, of one slice, and writes it.
double load(DType dtype, const void* data, uint32_t slice) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(static_cast<const float*>(data)[slice]);
    case DType::f64:
      return static_cast<const double*>(data)[slice];
    case DType::bf16:
      return static_cast<double>(math::bf16_to_f32(static_cast<const uint16_t*>(data)[slice]));
    case DType::f16:
      return static_cast<double>(math::f16_to_f32(static_cast<const uint16_t*>(data)[slice]));
    case DType::i8:
    case DType::u8:
      break;  // make_plan refuses these
  }
  return 0;
}

void store(DType dtype, void* data, uint32_t slice, double value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[slice] = static_cast<float>(value);
      break;
    case DType::f64:
      static_cast<double*>(data)[slice] = value;
      break;
    case DType::bf16:
      static_cast<uint16_t*>(data)[slice] = math::f32_to_bf16(static_cast<float>(value));
      break;
    case DType::f16:
      static_cast<uint16_t*>(data)[slice] = math::f32_to_f16(static_cast<float>(value));
      break;
    case DType::i8:
    case DType::u8:
      break;
  }
}

// Adds up the units of one reduction, in place.
double fold_units(Fold fold, double* units, int64_t count) {
  const Fold join = fold == Fold::max_abs ? Fold::max_abs : Fold::sum;
  const FoldFn<double> up = isa().kernels->f64.fold[static_cast<size_t>(join)];
  for (; count > 1; count = (count + kFoldUnit - 1) / kFoldUnit) up(units, units, units, count);
  return units[0];
}

int64_t whole_units(int64_t elements) { return fold_count(elements) * kFoldUnit; }

class Reducing final : public Job {
 public:
  Reducing(Plan made, std::span<const Program* const> programs) : Job(std::move(made)), tuning_(tuning()) {
    const FloatEnvironment environment;  // constants are rounded to fp32 in here
    for (const Program* p : programs) originals_.push_back(original(*p));
    if (tuning_.chunk) chunk_ = whole_units(tuning_.chunk);
    work_ = make_work(plan, programs, chunk_);
    block_ = tuning_.block                        ? static_cast<int>(whole_units(tuning_.block))
             : work_.elements <= kInCacheElements ? kInCacheBlock
                                                  : kFromMemoryBlock;
    for (const Code& code : work_.codes) {
      for (const Code::Step& s : code.steps) {
        interpreter_bytes_ = std::max({interpreter_bytes_, BlockRunner<float>::bytes(*s.code, block_),
                                       BlockRunner<double>::bytes(*s.code, block_)});
        const size_t row = std::max(s.native ? s.native->row_size() : 0, static_cast<size_t>(code.num_uniforms));
        row_bytes_ = std::max(row_bytes_, to_line<float>(row));
      }
    }
  }

  bool serves(std::span<const Program* const> programs) const override {
    return tuning_ == tuning() && std::ranges::equal(originals_, programs, [](const auto& mine, const Program* p) {
             return mine == kept(*p);
           });
  }
  void move(const Place&) override {}  // nothing to do: a run reads the addresses in the plan
  int64_t busy() const override { return static_cast<int64_t>(work_.cost); }
  void get_ready(const StepArgs& args) override {
    for (const Unit& u : work_.units) native_codes(kind_of(args_of(args, u)));
  }
  void run(const StepArgs& args, std::span<const Program* const>, const Place&) override {
    if (work_.units.empty()) {
      if (args.gradient_norm) *args.gradient_norm = 0;
      return;
    }
    const FloatEnvironment environment;
    run_here(args);
  }

 private:
  static std::shared_ptr<const void> original(const Program& p) {
    if (p.has_tensor_scalars())
      passes_of(p, false);
    else
      lowered(p);
    return kept(p);
  }
  static native::StepKind kind_of(const StepArgs& args) {
    return {static_cast<float>(args.factor) != 1.0f, args.rounding};
  }
  // The arguments for the tensor of one unit.
  StepArgs args_of(const StepArgs& args, const Unit& u) const {
    StepArgs out = args;
    if (!args.of_rows) return out;
    const RowArgs& row = args.of_rows[plan.tensors[u.tensor].row + u.slice];
    out.step = row.step;
    out.factor = row.factor;
    out.rounding = row.rounding;
    return out;
  }
  // The machine code of step k of unit u stands at [first of the unit + k], null where it is interpreted.
  struct NativeCodes {
    std::once_flag once;
    std::vector<const native::NativeCode*> of_step;
    std::vector<size_t> first;
    size_t bytes = 0;
  };
  const NativeCodes& native_codes(native::StepKind kind) {
    NativeCodes& out = native_[kind.index()];
    std::call_once(out.once, [&] {
      out.of_step.clear();  // what an attempt has left that ran out of memory
      out.first.clear();
      for (const Unit& u : work_.units) {
        const PlannedTensor& t = plan.tensors[u.tensor];
        out.first.push_back(out.of_step.size());
        for (const Code::Step& s : work_.codes[u.code].steps) {
          const native::NativeCode* code =
              s.native && !is_wide(t) ? s.native->code_for(dtypes_of(t, work_.codes[u.code]), kind) : nullptr;
          if (code) out.bytes = std::max(out.bytes, native::scratch_bytes(*code));
          out.of_step.push_back(code);
        }
      }
    });
    return out;
  }
  // Machine code does not touch states that are one number, whatever their dtype is.
  static std::array<DType, kMaxSlots> dtypes_of(const PlannedTensor& t, const Code& code) {
    std::array<DType, kMaxSlots> out = t.dtype;
    if (code.passes)
      for (const int s : code.passes->per_tensor) out[static_cast<size_t>(s) + bytecode::kFirstState] = DType::f32;
    return out;
  }

  // One run: the arguments and the memory that all threads share.
  struct Run {
    const StepArgs& args;
    std::array<const NativeCodes*, native::StepKind::kCount> native;  // null where no unit needs it
    std::vector<double> uniforms;
    std::vector<double> folds;   // of a shared unit
    std::vector<double> parts;   // of global reductions: what each unit has added up
    std::vector<double> totals;  // of global reductions
  };
  // The parts of a thread's scratch memory.
  struct Memory {
    char* blocks;
    float* row;
    double* folds;
  };
  size_t block_bytes(const Run& run) const {
    size_t bytes = interpreter_bytes_;
    for (const NativeCodes* n : run.native) bytes = std::max(bytes, n ? n->bytes : 0);
    return (bytes + kLine - 1) / kLine * kLine;
  }
  size_t memory_bytes(const Run& run) const { return block_bytes(run) + row_bytes_ + to_line<double>(work_.own_folds); }
  Memory parts(char* memory, const Run& run) const {
    const size_t blocks = block_bytes(run);
    return {memory, reinterpret_cast<float*>(memory + blocks), reinterpret_cast<double*>(memory + blocks + row_bytes_)};
  }

  // Everything that can fail comes first; nothing is written before the first pass.
  NOS_NOINLINE void run_here(const StepArgs& args) {
    Run run{args, {}, {}, {}, {}, {}};
    for (const Unit& u : work_.units) {
      const native::StepKind kind = kind_of(args_of(args, u));
      if (!run.native[kind.index()]) run.native[kind.index()] = &native_codes(kind);
    }
    run.uniforms.resize(work_.num_uniforms);
    run.folds.resize(work_.shared_folds);
    run.parts.resize(work_.total_of_part.size());
    run.totals.resize(work_.num_totals);
    const size_t bytes = memory_bytes(run);
    char* const own = scratch_memory(bytes);
    if (!own) throw std::bad_alloc();
    for (const Unit& u : work_.units) begin(run, u);
    const int threads = thread_count();
    std::vector<uint32_t> alone;
    alone.reserve(work_.units.size());
    for (ptrdiff_t phase = 0; phase < work_.phases; ++phase) {
      alone.clear();
      for (uint32_t i = 0; i < work_.units.size(); ++i) {
        if (work_.units[i].shared)
          run_shared(run, i, phase, threads, bytes, own);
        else
          alone.push_back(i);
      }
      for_each_on_threads(threads, alone.size(), bytes, own,
                          [&](size_t i, char* memory) { run_alone(run, alone[i], phase, memory); });
      if (phase + 1 < work_.phases) join_globals(run, phase);
    }
  }

  int thread_count() const {
    if (tuning_.threads) return is_forked() ? 1 : tuning_.threads;
    return static_cast<int>(std::clamp<double>(work_.cost / kThreadWork, 1, max_threads()));
  }

  double* uniforms(Run& run, const Unit& u) const { return run.uniforms.data() + u.uniforms; }

  void begin(Run& run, const Unit& u) const {
    const PlannedTensor& t = plan.tensors[u.tensor];
    const Code& code = work_.codes[u.code];
    double* out = uniforms(run, u);
    std::copy_n(run.args.rows[t.row + u.slice], code.num_scalars, out);
    if (!code.passes) return;
    double* next = out + code.num_scalars;
    for (const int s : code.passes->per_tensor) {
      const auto slot = static_cast<size_t>(s) + bytecode::kFirstState;
      *next++ = load(t.dtype[slot], t.data[slot], u.slice);
    }
    evaluate(code.passes->before, out);
  }

  // The steps of a code in one phase: all up to a global reduction.
  static std::pair<size_t, size_t> steps_of(const Code& code, ptrdiff_t phase) {
    size_t first = 0;
    for (size_t k = 0; k < code.steps.size(); ++k) {
      const bool ends = code.steps[k].waits_for_all() || k + 1 == code.steps.size();
      if (!ends) continue;
      if (phase-- == 0) return {first, k + 1};
      first = k + 1;
    }
    return {code.steps.size(), code.steps.size()};
  }

  void run_alone(Run& run, uint32_t unit, ptrdiff_t phase, char* memory) const {
    const Unit& u = work_.units[unit];
    const Memory mine = parts(memory, run);
    const int64_t numel = plan.tensors[u.tensor].numel;
    const auto [first, last] = steps_of(work_.codes[u.code], phase);
    for (size_t k = first; k < last; ++k) {
      const native::NativeCode* native = fill_row(run, unit, k, mine.row);
      run_chunk(run, u, k, native, mine.row, {u.tensor, u.slice, 0, numel}, mine.folds, mine.blocks);
      end_step(run, unit, k, mine.folds);
    }
  }

  void run_shared(Run& run, uint32_t unit, ptrdiff_t phase, int threads, size_t bytes, char* own) const {
    const Unit& u = work_.units[unit];
    const int64_t numel = plan.tensors[u.tensor].numel;
    const auto chunks = static_cast<size_t>((numel + chunk_ - 1) / chunk_);
    const auto [first, last] = steps_of(work_.codes[u.code], phase);
    for (size_t k = first; k < last; ++k) {
      float* const row = parts(own, run).row;
      const native::NativeCode* native = fill_row(run, unit, k, row);
      for_each_on_threads(threads, chunks, bytes, own, [&](size_t c, char* memory) {
        const int64_t begin = static_cast<int64_t>(c) * chunk_;
        run_chunk(run, u, k, native, row, {u.tensor, u.slice, begin, std::min(begin + chunk_, numel)}, run.folds.data(),
                  parts(memory, run).blocks);
      });
      end_step(run, unit, k, run.folds.data());
    }
  }

  // Rounds the numbers of a unit to fp32, as the tier that runs the step wants them. Returns the machine code, or null.
  const native::NativeCode* fill_row(Run& run, uint32_t unit, size_t k, float* row) const {
    const Unit& u = work_.units[unit];
    const Code::Step& step = work_.codes[u.code].steps[k];
    const StepArgs args = args_of(run.args, u);
    const NativeCodes& codes = *run.native[kind_of(args).index()];
    const native::NativeCode* const native = codes.of_step[codes.first[unit] + k];
    const double* from = uniforms(run, u);
    if (native)
      step.native->fill_row(from, static_cast<float>(args.factor), row);
    else
      for (int i = 0; i < work_.codes[u.code].num_uniforms; ++i) row[i] = static_cast<float>(from[i]);
    return native;
  }

  void run_chunk(Run& run, const Unit& u, size_t k, const native::NativeCode* native, const float* row,
                 const Chunk& chunk, double* folds, char* memory) const {
    const PlannedTensor& t = plan.tensors[u.tensor];
    const Lowered& code = *work_.codes[u.code].steps[k].code;
    const uint64_t seed = run.args.seeds[t.row + u.slice];
    const StepArgs args = args_of(run.args, u);
    const FoldTarget target{folds, fold_count(t.numel)};
    if (native)
      native::run(*native, t, chunk, row, {seed, 0, args.step, t.index, 0}, block_, memory, target);
    else if (is_wide(t))
      BlockRunner<double>(code, t, uniforms(run, u), args, seed, block_, memory).run(chunk, target);
    else
      BlockRunner<float>(code, t, row, args, seed, block_, memory).run(chunk, target);
  }

  void end_step(Run& run, uint32_t unit, size_t k, double* folds) const {
    const Unit& u = work_.units[unit];
    const PlannedTensor& t = plan.tensors[u.tensor];
    const Code& code = work_.codes[u.code];
    if (!code.passes) return;
    const Pass& pass = *code.steps[k].pass;
    const int64_t count = fold_count(t.numel);
    for (size_t f = 0; f < pass.folds.size(); ++f) {
      double* const units = folds + static_cast<int64_t>(f) * count;
      units[0] = fold_units(pass.folds[f], units, count);
    }
    double* const out = uniforms(run, u);
    size_t part = u.globals + code.steps[k].first_global;
    for (const Reduced& reduced : pass.reduced) {
      const double total = folds[reduced.fold * count];
      if (is_global(reduced))
        run.parts[part++] = total;
      else
        out[reduced.id] = finished(reduced.op, total, static_cast<double>(t.numel));
    }
    if (!pass.waits_for_all) evaluate(pass.then, out);
    if (k + 1 == code.steps.size() && !pass.waits_for_all) end(run, u);
  }

  // Puts the new numbers into the states that are one number per tensor.
  void end(Run& run, const Unit& u) const {
    const PlannedTensor& t = plan.tensors[u.tensor];
    const Passes& passes = *work_.codes[u.code].passes;
    for (size_t i = 0; i < passes.per_tensor.size(); ++i) {
      const auto slot = static_cast<size_t>(passes.per_tensor[i]) + bytecode::kFirstState;
      store(t.dtype[slot], t.data[slot], u.slice, uniforms(run, u)[passes.per_tensor_new[i].id()]);
    }
  }

  // Adds up what the tensors have of the global reductions of a phase, in their order, and does the arithmetic that
  // waits for them.
  void join_globals(Run& run, ptrdiff_t phase) const {
    const auto each = [&](const auto& visit) {
      for (uint32_t i = 0; i < work_.units.size(); ++i) {
        const Code& code = work_.codes[work_.units[i].code];
        const auto [first, last] = steps_of(code, phase);
        if (first == last || !code.steps[last - 1].waits_for_all()) continue;
        visit(work_.units[i], code, last - 1, work_.units[i].globals + code.steps[last - 1].first_global);
      }
    };
    each([&](const Unit&, const Code& code, size_t k, size_t part) {
      for (const Reduced& reduced : code.steps[k].pass->reduced)
        if (is_global(reduced)) {
          run.totals[work_.total_of_part[part]] += run.parts[part];
          ++part;
        }
    });
    if (run.args.gradient_norm && phase == 0 && work_.gradient_norm != Work::kNone)
      *run.args.gradient_norm = finished(Op::global_norm, run.totals[work_.gradient_norm], 0);
    each([&](const Unit& u, const Code& code, size_t k, size_t part) {
      const Pass& pass = *code.steps[k].pass;
      double* const out = uniforms(run, u);
      for (const Reduced& reduced : pass.reduced)
        if (is_global(reduced)) out[reduced.id] = finished(reduced.op, run.totals[work_.total_of_part[part++]], 0);
      evaluate(pass.then, out);
      if (k + 1 == code.steps.size()) end(run, u);
    });
  }

  const Tuning tuning_;
  std::vector<std::shared_ptr<const void>> originals_;
  Work work_;
  size_t interpreter_bytes_ = 0, row_bytes_ = 0;
  int block_ = 0;
  int64_t chunk_ = kChunk;
  std::array<NativeCodes, native::StepKind::kCount> native_;
};

}  // namespace

std::shared_ptr<Job> prepare_reducing(Plan plan, std::span<const Program* const> programs) {
  return std::make_shared<Reducing>(std::move(plan), programs);
}

}  // namespace nos::cpu
