#include "engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.h"
#include "lower.h"

namespace nos::cpu {
namespace {

Tuning g_tuning;

constexpr int64_t kInCacheElements = int64_t{2} << 20;  // up to here long blocks win, above short ones (DRAM streams)
constexpr int kInCacheBlock = 512, kFromMemoryBlock = 128;
constexpr int64_t kChunk = 64 * 1024;
// Below this much work (element x unit of OpInfo::cost) a second thread costs more than it brings.
[[maybe_unused]] constexpr int64_t kWorkPerThread = 150'000;
constexpr int64_t kGrabElements = 4096;  // small chunks are taken from the common counter in groups of about this size
constexpr size_t kLine = 64;  // bytes

// Bytes of one scratch register: whole lines and one more, so that equal offsets do not share a cache set.
template <class T>
constexpr size_t register_stride(int block) {
  return (static_cast<size_t>(block) * sizeof(T) + kLine - 1) / kLine * kLine + kLine;
}

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

template <class T>
const KernelSet<T>& kernel_set(const Kernels& k) {
  if constexpr (std::is_same_v<T, float>) return k.f32;
  else return k.f64;
}

// Runs the steps of one program over one chunk of one tensor.
template <class T>
class ChunkRunner {
 public:
  ChunkRunner(const Lowered& code, const PlannedTensor& tensor, const T* scalars, const StepArgs& args, uint64_t seed,
              int block, char* memory)
      : code_(code), tensor_(tensor), scalars_(scalars), args_(args), seed_(seed), kernels_(*isa().kernels),
        set_(kernel_set<T>(kernels_)), block_(block), factor_(static_cast<T>(args.factor)),
        stride_(register_stride<T>(block)) {
    base_ = reinterpret_cast<T**>(memory);  // one pointer per place, then the registers
    const size_t places = static_cast<size_t>(code.num_slots + code.num_temps);
    scratch_ = memory + (places * sizeof(T*) + kLine - 1) / kLine * kLine;
    for (int p = code.num_slots; p < code.num_slots + code.num_temps; ++p) base_[p] = scratch(p);
  }

  static size_t bytes(const Lowered& code, int block) {
    const size_t places = static_cast<size_t>(code.num_slots + code.num_temps);
    return places * (sizeof(T*) + register_stride<T>(block)) + kLine;
  }

  void run(const Chunk& chunk) {
    const int64_t origin = static_cast<int64_t>(chunk.slice) * tensor_.numel;
    for (int64_t first = chunk.begin; first < chunk.end; first += block_) {
      const int64_t n = std::min<int64_t>(block_, chunk.end - first);
      load(origin + first, n);
      for (const Step& s : code_.steps) execute(s, first, n);
      store(origin + first, n);
    }
  }

 private:
  T* scratch(int place) const { return reinterpret_cast<T*>(scratch_ + stride_ * static_cast<size_t>(place)); }

  // A slot in the compute type is used where it lies; others, and a scaled gradient, are converted into scratch.
  bool in_place(int slot) const {
    const DType own = std::is_same_v<T, double> ? DType::f64 : DType::f32;
    return tensor_.dtype[static_cast<size_t>(slot)] == own && !(slot == bytecode::kG && factor_ != T(1));
  }

  void load(int64_t first, int64_t n) {
    for (int s = 0; s < code_.num_slots; ++s) {
      char* at = static_cast<char*>(tensor_.data[static_cast<size_t>(s)]) +
                 first * size_of(tensor_.dtype[static_cast<size_t>(s)]);
      if (in_place(s)) {
        base_[s] = reinterpret_cast<T*>(at);
        continue;
      }
      base_[s] = scratch(s);
      if (!(code_.reads >> s & 1)) continue;
      const T* values = base_[s];
      if constexpr (std::is_same_v<T, float>) {
        switch (tensor_.dtype[static_cast<size_t>(s)]) {
          case DType::bf16: kernels_.from_bf16(base_[s], reinterpret_cast<const uint16_t*>(at), n); break;
          case DType::f16: kernels_.from_f16(base_[s], reinterpret_cast<const uint16_t*>(at), n); break;
          default: values = reinterpret_cast<const T*>(at);
        }
      } else {
        values = reinterpret_cast<const T*>(at);
      }
      if (s == bytecode::kG && factor_ != T(1)) set_.scale(base_[s], values, factor_, n);
    }
  }

  void store(int64_t first, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
      for (int s = 0; s < code_.num_slots; ++s) {
        if (!(code_.writes >> s & 1)) continue;
        auto* at = static_cast<uint16_t*>(tensor_.data[static_cast<size_t>(s)]) + first;
        if (tensor_.dtype[static_cast<size_t>(s)] == DType::bf16) kernels_.to_bf16(at, base_[s], n);
        if (tensor_.dtype[static_cast<size_t>(s)] == DType::f16) kernels_.to_f16(at, base_[s], n);
      }
    }
  }

  const T* operand(const Step& s, int k) const {
    return s.scalars >> k & 1 ? scalars_ + (s.arg[k] - kScalarPlace) : base_[s.arg[k]];
  }

  void execute(const Step& s, int64_t first, int64_t n) const {
    T* dst = base_[s.dst];
    switch (s.kind) {
      case Step::Kind::map:
        set_.map[static_cast<size_t>(s.op)][s.scalars](dst, operand(s, 0), operand(s, 1), operand(s, 2), n);
        break;
      case Step::Kind::copy: set_.copy(dst, operand(s, 0), n); break;
      case Step::Kind::fill: set_.fill(dst, *operand(s, 0), n); break;
      case Step::Kind::random: {
        const DrawKey key{seed_, static_cast<uint64_t>(first), args_.step, tensor_.index, s.site};
        if (s.op == Op::drop) drop(s, dst, key, n);
        else set_.normal(dst, *operand(s, 0), key, n);
        break;
      }
    }
  }

  void drop(const Step& s, T* dst, const DrawKey& key, int64_t n) const {
    if (s.scalars & 1) {  // a scalar may be dropped per element too
      set_.fill(dst, *operand(s, 0), n);
      set_.drop(dst, dst, *operand(s, 1), key, n);
    } else {
      set_.drop(dst, operand(s, 0), *operand(s, 1), key, n);
    }
  }

  const Lowered& code_;
  const PlannedTensor& tensor_;
  const T* scalars_;
  const StepArgs& args_;
  const uint64_t seed_;
  const Kernels& kernels_;
  const KernelSet<T>& set_;
  const int block_;
  const T factor_;
  const size_t stride_;
  char* scratch_;
  T** base_;
};

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

// The scalars rounded once to fp32, row after row, in memory that the calling thread keeps.
class Rows32 {
 public:
  explicit Rows32(const StepArgs& args) {
    static thread_local std::vector<float> values;
    static thread_local std::vector<size_t> starts;
    values.clear();
    starts.clear();
    for (size_t r = 0; r < args.num_rows; ++r) {
      starts.push_back(values.size());
      for (size_t i = 0; i < args.row_sizes[r]; ++i) values.push_back(static_cast<float>(args.rows[r][i]));
    }
    values_ = values.data();
    starts_ = starts.data();
  }
  const float* row(size_t r) const { return values_ + starts_[r]; }

 private:
  const float* values_;
  const size_t* starts_;
};

}  // namespace

void set_tuning(const Tuning& tuning) { g_tuning = tuning; }
const Tuning& tuning() { return g_tuning; }

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
  for (const Program* p : programs) out->code.push_back(lowered(*p));
  int64_t elements = 0;
  out->work = 0;
  out->any32 = out->any64 = false;
  for (const PlannedTensor& t : plan.tensors) {
    elements += t.numel * t.slices;
    for (uint32_t slice = 0; slice < t.slices; ++slice)
      out->work += t.numel * (out->code[t.program + slice]->cost + plan.num_slots);
    (t.dtype[bytecode::kP] == DType::f64 ? out->any64 : out->any32) = true;
  }
  out->block = g_tuning.block ? g_tuning.block : elements <= kInCacheElements ? kInCacheBlock : kFromMemoryBlock;
  out->threads = g_tuning.threads;
  out->chunks = make_chunks(plan, g_tuning.chunk ? g_tuning.chunk : kChunk);
  const auto count = static_cast<int64_t>(out->chunks.size());
  out->grab = static_cast<size_t>(count ? std::clamp<int64_t>(kGrabElements * count / elements, 1, 64) : 1);
  out->scratch = 0;
  for (const auto& code : out->code) {
    if (out->any32) out->scratch = std::max(out->scratch, ChunkRunner<float>::bytes(*code, out->block));
    if (out->any64) out->scratch = std::max(out->scratch, ChunkRunner<double>::bytes(*code, out->block));
  }
  out->plan = std::move(plan);
  return out;
}

void run(const Prepared& job, const StepArgs& args) {
  if (job.chunks.empty()) return;
  std::optional<Rows32> rows32;
  if (job.any32) rows32.emplace(args);

  std::atomic<size_t> next{0};
  const auto worker = [&] {
    char* memory = static_cast<char*>(t_scratch.get(job.scratch));
    for (size_t first; (first = next.fetch_add(job.grab, std::memory_order_relaxed)) < job.chunks.size();) {
      const size_t stop = std::min(first + job.grab, job.chunks.size());
      for (size_t i = first; i < stop; ++i) {
        const Chunk& c = job.chunks[i];
        const PlannedTensor& t = job.plan.tensors[c.tensor];
        const Lowered& code = *job.code[t.program + c.slice];
        const size_t row = t.row + c.slice;
        if (t.dtype[bytecode::kP] == DType::f64)
          ChunkRunner<double>(code, t, args.rows[row], args, args.seeds[row], job.block, memory).run(c);
        else
          ChunkRunner<float>(code, t, rows32->row(row), args, args.seeds[row], job.block, memory).run(c);
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
