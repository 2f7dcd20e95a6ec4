#include "engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "block_runner.h"
#include "kernels.h"
#include "lower.h"
#include "native/runner.h"

namespace nos::cpu {
namespace {

Tuning g_tuning;

constexpr int64_t kInCacheElements = int64_t{2} << 20;  // up to here long blocks win, above short ones (DRAM streams)
constexpr int kInCacheBlock = 512, kFromMemoryBlock = 128;
constexpr int64_t kChunk = 64 * 1024;
// Below this much work (element x unit of OpInfo::cost) a second thread costs more than it brings.
[[maybe_unused]] constexpr int64_t kWorkPerThread = 150'000;
constexpr int64_t kGrabElements = 4096;  // small chunks are taken from the common counter in groups of about this size

// Scratch of one thread: aligned, grown on demand, kept for the next call.
class Scratch {
 public:
  ~Scratch() { free(); }
  void* get(size_t bytes) {
    if (bytes > size_) {
      free();
      data_ = ::operator new(bytes, std::align_val_t{kLine});
      size_ = bytes;
    }
    return data_;
  }

 private:
  void free() {
    if (data_) ::operator delete(data_, std::align_val_t{kLine});
    data_ = nullptr;
    size_ = 0;
  }
  void* data_ = nullptr;
  size_t size_ = 0;
};
thread_local Scratch t_scratch;

std::vector<Chunk> make_chunks(const Plan& plan, int64_t size) {
  std::vector<Chunk> chunks;
  size_t count = 0;
  for (const PlannedTensor& t : plan.tensors) count += t.slices * static_cast<size_t>((t.numel + size - 1) / size);
  chunks.reserve(count);
  for (uint32_t i = 0; i < plan.tensors.size(); ++i)
    for (uint32_t slice = 0; slice < plan.tensors[i].slices; ++slice)
      for (int64_t at = 0; at < plan.tensors[i].numel; at += size)
        chunks.push_back({i, slice, at, std::min(at + size, plan.tensors[i].numel)});
  return chunks;
}

// The scalar rows in fp32, one after the other, in memory that the calling thread keeps.
class Rows32 {
 public:
  Rows32(const Prepared& job, const StepArgs& args) {
    static thread_local std::vector<float> values;
    static thread_local std::vector<size_t> starts;
    starts.assign(args.num_rows, kUnused);
    values.clear();
    for (const PlannedTensor& t : job.plan.tensors) {
      if (t.dtype[bytecode::kP] == DType::f64) continue;
      for (uint32_t slice = 0; slice < t.slices; ++slice) {
        const size_t r = t.row + slice;
        if (starts[r] != kUnused) continue;
        starts[r] = values.size();
        const auto& native = job.native[t.program + slice];
        values.resize(values.size() + (native ? native->row_size() : args.row_sizes[r]));
        float* row = values.data() + starts[r];
        if (native) native->fill_row(args.rows[r], static_cast<float>(args.factor), row);
        else for (size_t i = 0; i < args.row_sizes[r]; ++i) row[i] = static_cast<float>(args.rows[r][i]);
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

const char* native_status() { return native::status(); }

int max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

std::shared_ptr<const Prepared> prepare(Plan plan, std::span<const Program* const> programs) {
  auto out = std::make_shared<Prepared>();
  out->code.reserve(programs.size());
  for (const Program* p : programs) {
    out->code.push_back(lowered(*p));
    out->native.push_back(native::native_of(*p));
  }
  int64_t elements = 0;
  out->work = 0;
  out->any32 = out->any64 = false;
  for (const PlannedTensor& t : plan.tensors) {
    elements += t.numel * t.slices;
    for (uint32_t slice = 0; slice < t.slices; ++slice)
      out->work += t.numel * (out->code[t.program + slice]->cost + plan.num_slots);
    (t.dtype[bytecode::kP] == DType::f64 ? out->any64 : out->any32) = true;
    const auto known = std::find(out->layouts.begin(), out->layouts.end(), t.dtype);
    out->layout.push_back(static_cast<uint32_t>(known - out->layouts.begin()));
    if (known == out->layouts.end()) out->layouts.push_back(t.dtype);
  }
  out->block = g_tuning.block ? g_tuning.block : elements <= kInCacheElements ? kInCacheBlock : kFromMemoryBlock;
  out->threads = g_tuning.threads;
  out->chunks = make_chunks(plan, g_tuning.chunk ? g_tuning.chunk : kChunk);
  const auto count = static_cast<int64_t>(out->chunks.size());
  out->grab = static_cast<size_t>(count ? std::clamp<int64_t>(kGrabElements * count / elements, 1, 64) : 1);
  out->scratch = 0;
  for (const auto& code : out->code) {
    if (out->any32) out->scratch = std::max(out->scratch, BlockRunner<float>::bytes(*code, out->block));
    if (out->any64) out->scratch = std::max(out->scratch, BlockRunner<double>::bytes(*code, out->block));
  }
  out->plan = std::move(plan);
  return out;
}

const std::vector<const native::Code*>& Prepared::native_code(bool scaled) const {
  Compiled& c = compiled[scaled];
  std::call_once(c.once, [&] {
    c.code.assign(layouts.size() * code.size(), nullptr);
    // a plan of many programs need not use every one with every choice of dtypes
    for (size_t i = 0; i < plan.tensors.size(); ++i)
      for (uint32_t slice = 0; slice < plan.tensors[i].slices; ++slice) {
        const size_t program = plan.tensors[i].program + slice;
        const native::Code*& to = c.code[layout[i] * code.size() + program];
        if (!to && native[program] && plan.tensors[i].dtype[bytecode::kP] != DType::f64)
          to = native[program]->code(plan.tensors[i].dtype, scaled);
      }
  });
  return c.code;
}

void run(const Prepared& job, const StepArgs& args) {
  if (job.chunks.empty()) return;
  std::optional<Rows32> rows32;
  if (job.any32) rows32.emplace(job, args);
  const std::vector<const native::Code*>& compiled = job.native_code(static_cast<float>(args.factor) != 1.0f);

  size_t scratch = job.scratch;
  for (const native::Code* c : compiled)
    if (c) scratch = std::max(scratch, native::scratch_bytes(*c));

  std::atomic<size_t> next{0};
  const auto worker = [&] {
    char* memory = static_cast<char*>(t_scratch.get(scratch));
    for (size_t first; (first = next.fetch_add(job.grab, std::memory_order_relaxed)) < job.chunks.size();) {
      const size_t stop = std::min(first + job.grab, job.chunks.size());
      for (size_t i = first; i < stop; ++i) {
        const Chunk& c = job.chunks[i];
        const PlannedTensor& t = job.plan.tensors[c.tensor];
        const Lowered& code = *job.code[t.program + c.slice];
        const size_t row = t.row + c.slice;
        const native::Code* fused = compiled[job.layout[c.tensor] * job.code.size() + t.program + c.slice];
        if (fused)
          native::run(*fused, t, c, rows32->row(row), {args.seeds[row], 0, args.step, t.index, 0}, job.block, memory);
        else if (t.dtype[bytecode::kP] == DType::f64)
          BlockRunner<double>(code, t, args.rows[row], args, args.seeds[row], job.block, memory).run(c);
        else
          BlockRunner<float>(code, t, rows32->row(row), args, args.seeds[row], job.block, memory).run(c);
      }
    }
  };
#ifdef _OPENMP
  const int64_t wanted = job.threads ? job.threads : std::min<int64_t>(max_threads(), 1 + job.work / kWorkPerThread);
  const int threads = static_cast<int>(
      std::min<int64_t>(wanted, static_cast<int64_t>((job.chunks.size() + job.grab - 1) / job.grab)));
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    worker();
    return;
  }
#endif
  worker();
}

}  // namespace nos::cpu
