#include "engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>

#include "../../ops/float_environment.h"
#include "interpreter/block_runner.h"
#include "interpreter/lower.h"
#include "kernels.h"
#include "native/runner.h"
#include "reducing.h"
#include "threads.h"

namespace nos {
namespace cpu {
namespace {

Tuning g_tuning;

// Up to this many elements the data stay in the cache and long blocks are faster. Beyond, they stream from DRAM and
// short blocks are. Where states are rounded to a smaller dtype, both are longer: a draw for stochastic rounding and
// the scales on which codes wait cost a constant time for each block, and codes have both.
constexpr int64_t kInCacheElements = int64_t{2} << 20;
constexpr int kInCacheBlock = 512, kFromMemoryBlock = 128;
constexpr int kRoundedInCacheBlock = 1024, kRoundedFromMemoryBlock = 256, kCodedFromMemoryBlock = 512;
constexpr int64_t kMostChunk = 64 * 1024, kLeastChunk = 1024;  // elements
constexpr int64_t kChunkUnit = 256;                            // elements: whole cache lines, and blocks of scales
static_assert(kChunkUnit % kScaleBlock == 0 && kLeastChunk % kScaleBlock == 0 && native::kMaxBlock % kScaleBlock == 0);
constexpr int kChunksPerThread = 4;
constexpr double kGrabWork = 400;  // ns: a thread takes small chunks in groups of about this much work
constexpr int kMostRanges = 64;    // at most so many threads have a range of chunks of their own

// As many threads as the work is worth now. The answer may change between two runs, as torch.set_num_threads may be
// called in between.
int threads_of(const Prepared& job) {
  if (job.threads) return is_forked() ? 1 : job.threads;
  return static_cast<int>(std::clamp<double>(static_cast<double>(job.work) / kThreadWork, 1, max_threads()));
}

// The ns that one element of slice `slice` of tensor t takes.
double cost_of(const Prepared& job, const PlannedTensor& t, uint32_t slice) {
  const bool wide = is_wide(t);
  const auto& native = job.native[t.program + slice];
  return native && !wide ? native->cost() : interpreter_cost(*job.code[t.program + slice], wide);
}

void make_chunks(Prepared& job, int64_t size) {
  size_t count = 0;
  for (const PlannedTensor& t : job.plan.tensors) count += t.slices * static_cast<size_t>((t.numel + size - 1) / size);
  job.chunks.reserve(count);
  job.work_before.reserve(count);
  double work = 0;
  for (uint32_t i = 0; i < job.plan.tensors.size(); ++i) {
    const PlannedTensor& t = job.plan.tensors[i];
    for (uint32_t slice = 0; slice < t.slices; ++slice) {
      const double cost = cost_of(job, t, slice);
      for (int64_t at = 0; at < t.numel; at += size) {
        const int64_t end = std::min(at + size, t.numel);
        job.chunks.push_back({i, slice, at, end});
        job.work_before.push_back(static_cast<int64_t>(work));
        work += cost * static_cast<double>(end - at);
      }
    }
  }
}

// The chunks that are still to be done. Every thread first takes those of its own range, which is the same in every
// call, so that the data stay in its core's cache. Then it helps the others.
class Queue {
 public:
  Queue(const Prepared& job, int threads) : grab_(job.grab), ranges_(std::min(threads, kMostRanges)) {
    const auto& before = job.work_before;
    for (int r = 0; r < ranges_; ++r) {
      const auto at = std::lower_bound(before.begin(), before.end(), job.work * r / ranges_);
      range_[r].next.store(static_cast<size_t>(at - before.begin()), std::memory_order_relaxed);
      if (r > 0) range_[r - 1].end = static_cast<size_t>(at - before.begin());
    }
    range_[ranges_ - 1].end = before.size();
  }

  template <class Visit>
  void work(int thread, const Visit& visit) {
    for (int k = 0; k < ranges_; ++k) {
      Range& r = range_[(thread + k) % ranges_];
      for (size_t i; (i = r.next.fetch_add(grab_, std::memory_order_relaxed)) < r.end;)
        for (const size_t stop = std::min(i + grab_, r.end); i < stop; ++i) visit(i);
    }
  }

 private:
  struct alignas(kLine) Range {
    std::atomic<size_t> next;
    size_t end;
  };
  const size_t grab_;
  const int ranges_;
  Range range_[kMostRanges];
};

// The scalar rows rounded to fp32, one after the other, in memory that the calling thread keeps.
class Rows32 {
 public:
  Rows32(const Prepared& job, const StepArgs& args) {
    static thread_local std::vector<float> values;
    static thread_local std::vector<size_t> starts;
    starts.assign(args.num_rows, kUnused);
    values.clear();
    for (const PlannedTensor& t : job.plan.tensors) {
      if (is_wide(t)) continue;
      for (uint32_t slice = 0; slice < t.slices; ++slice) {
        const size_t r = t.row + slice;
        if (starts[r] != kUnused) continue;
        starts[r] = values.size();
        const auto& native = job.native[t.program + slice];
        values.resize(values.size() + (native ? native->row_size() : args.row_sizes[r]));
        float* row = values.data() + starts[r];
        if (native)
          native->fill_row(args.rows[r], static_cast<float>(args.factor), row);
        else
          for (size_t i = 0; i < args.row_sizes[r]; ++i) row[i] = static_cast<float>(args.rows[r][i]);
      }
    }
    values_ = values.data();
    starts_ = starts.data();
  }
  const float* row(size_t r) const { return values_ + starts_[r]; }

 private:
  static constexpr size_t kUnused = ~size_t{0};
  const float* values_;
  const size_t* starts_;
};

}  // namespace

void set_tuning(const Tuning& tuning) { g_tuning = tuning; }
const Tuning& tuning() { return g_tuning; }

std::shared_ptr<Prepared> prepare(Plan plan, std::span<const Program* const> programs) {
  const FloatEnvironment environment;  // constants are rounded to fp32 in here
  auto out = std::make_shared<Prepared>(std::move(plan));
  out->code.reserve(programs.size());
  for (const Program* p : programs) {
    out->code.push_back(lowered(*p));
    out->native.push_back(native::native_of(*p));
  }
  out->tuning = g_tuning;
  int64_t elements = 0;
  double work = 0;
  out->any32 = out->any64 = false;
  for (const PlannedTensor& t : out->plan.tensors) {
    elements += t.numel * t.slices;
    for (uint32_t slice = 0; slice < t.slices; ++slice) work += cost_of(*out, t, slice) * static_cast<double>(t.numel);
    (is_wide(t) ? out->any64 : out->any32) = true;
    const auto known = std::find(out->layouts.begin(), out->layouts.end(), t.dtype);
    out->layout.push_back(static_cast<uint32_t>(known - out->layouts.begin()));
    if (known == out->layouts.end()) out->layouts.push_back(t.dtype);
  }
  out->work = static_cast<int64_t>(work);
  const auto any_state = [&](bool (*is)(DType)) {
    return std::ranges::any_of(out->layouts, [is](const auto& dtypes) {
      return std::any_of(dtypes.begin() + bytecode::kFirstState, dtypes.end(), is);
    });
  };
  const bool quantized = any_state([](DType t) { return is_quantized(t); });
  const bool rounded = quantized || any_state([](DType t) { return is_half(t); });
  const int64_t unit = quantized ? kScaleBlock : 1;
  const auto whole = [&](int64_t count) { return (count + unit - 1) / unit * unit; };
  const bool in_cache = elements <= kInCacheElements;
  const int long_block = rounded ? kRoundedInCacheBlock : kInCacheBlock;
  const int short_block = quantized ? kCodedFromMemoryBlock : rounded ? kRoundedFromMemoryBlock : kFromMemoryBlock;
  out->block = static_cast<int>(whole(g_tuning.block ? g_tuning.block : in_cache ? long_block : short_block));
  out->threads = g_tuning.threads;
  const int64_t share = (elements / (threads_of(*out) * kChunksPerThread) / kChunkUnit + 1) * kChunkUnit;
  make_chunks(*out, whole(g_tuning.chunk ? g_tuning.chunk : std::clamp(share, kLeastChunk, kMostChunk)));
  const auto count = static_cast<double>(out->chunks.size());
  out->grab = static_cast<size_t>(count ? std::clamp<double>(kGrabWork * count / (work + 1), 1, 64) : 1);
  out->scratch = 0;
  for (const auto& code : out->code) {
    if (out->any32) out->scratch = std::max(out->scratch, BlockRunner<float>::bytes(*code, out->block));
    if (out->any64) out->scratch = std::max(out->scratch, BlockRunner<double>::bytes(*code, out->block));
  }
  return out;
}

bool Prepared::serves(std::span<const Program* const> programs) const {
  return tuning == g_tuning && std::ranges::equal(code, programs, [](const auto& mine, const Program* program) {
           return mine == program->kept.cpu_code;
         });
}

const std::vector<const native::NativeCode*>& Prepared::native_code(native::StepKind kind) const {
  Compiled& c = compiled[kind.index()];
  std::call_once(c.once, [&] {
    c.code.assign(layouts.size() * code.size(), nullptr);
    // A plan of many programs need not combine every program with every choice of dtypes.
    for (size_t i = 0; i < plan.tensors.size(); ++i)
      for (uint32_t slice = 0; slice < plan.tensors[i].slices; ++slice) {
        const size_t program = plan.tensors[i].program + slice;
        const native::NativeCode*& to = c.code[layout[i] * code.size() + program];
        if (!to && native[program] && plan.tensors[i].dtype[bytecode::kP] != DType::f64)
          to = native[program]->code_for(plan.tensors[i].dtype, kind);
      }
  });
  return c.code;
}

namespace {

native::StepKind kind_of(const StepArgs& args) { return {static_cast<float>(args.factor) != 1.0f, args.rounding}; }

NOS_NOINLINE void run_here(const Prepared& job, const StepArgs& args) {
  std::optional<Rows32> rows32;
  if (job.any32) rows32.emplace(job, args);
  const std::vector<const native::NativeCode*>& compiled = job.native_code(kind_of(args));

  size_t scratch = job.scratch;
  for (const native::NativeCode* c : compiled)
    if (c) scratch = std::max(scratch, native::scratch_bytes(*c));
  char* const memory = scratch_memory(scratch);
  if (!memory) throw std::bad_alloc();  // nothing is written yet, and nothing below can fail

  const auto one = [&](size_t i, char* memory) {
    const Chunk& c = job.chunks[i];
    const PlannedTensor& t = job.plan.tensors[c.tensor];
    const size_t program = t.program + c.slice, row = t.row + c.slice;
    const native::NativeCode* const fused = compiled[job.layout[c.tensor] * job.code.size() + program];
    if (fused)
      native::run(*fused, t, c, rows32->row(row), {args.seeds[row], 0, args.step, t.index, 0}, job.block, memory);
    else if (is_wide(t))
      BlockRunner<double>(*job.code[program], t, args.rows[row], args, args.seeds[row], job.block, memory).run(c);
    else
      BlockRunner<float>(*job.code[program], t, rows32->row(row), args, args.seeds[row], job.block, memory).run(c);
  };
#ifdef _OPENMP
  const int threads = static_cast<int>(std::min(static_cast<size_t>(threads_of(job)), job.chunks.size()));
  if (threads > 1) {
    Queue queue(job, threads);
#pragma omp parallel num_threads(threads)
    {
      const FloatEnvironment environment;
      // A thread that gets no scratch memory leaves its chunks to the others. The calling thread has its memory
      // already.
      const int thread = omp_get_thread_num();
      if (char* own = thread == 0 ? memory : scratch_memory(scratch))
        queue.work(thread, [&](size_t i) { one(i, own); });
    }
    return;
  }
#endif
  for (size_t i = 0; i < job.chunks.size(); ++i) one(i, memory);
}

}  // namespace

void Prepared::get_ready(const StepArgs& args) { native_code(kind_of(args)); }

// Throws std::bad_alloc before the first write, and nothing else.
void Prepared::run(const StepArgs& args, std::span<const Program* const>, const Place&) {
  if (chunks.empty()) return;
  const FloatEnvironment environment;
  run_here(*this, args);
}

}  // namespace cpu

namespace {

class Cpu final : public Backend {
 public:
  bool has_streams() const override { return false; }
  bool takes_rows_apart() const override { return true; }
  void check(const Place&) const override {}
  std::shared_ptr<Job> prepare(Plan plan, std::span<const Program* const> programs, const Place&) const override {
    if (std::ranges::any_of(programs, &Program::has_tensor_scalars))
      return cpu::prepare_reducing(std::move(plan), programs);
    return cpu::prepare(std::move(plan), programs);
  }
  std::unique_ptr<CapturedStep> capture(const Plan&, std::span<const Program* const>, std::span<const uint32_t>,
                                        Capacity, bool, const Place&) const override {
    throw TensorError("params are on the CPU, which has no CUDA graphs; use apply_rule, or move the tensors");
  }
};

}  // namespace

const Backend& cpu_backend() {
  static const Cpu backend;
  return backend;
}

Facts cpu_facts() {
#ifdef _OPENMP
  constexpr bool kOpenMp = true;
#else
  constexpr bool kOpenMp = false;
#endif
  return {{"isa", cpu::isa().name},
          {"isas", cpu::usable_isas()},
          {"openmp", kOpenMp},
          {"threads", cpu::max_threads()},
          {"native", cpu::native::status()}};
}

}  // namespace nos
