#include "host_run.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../../../csrc/backend/cuda/common/step_block.h"
#include "../../../csrc/backend/cuda/interpreter/kernel.h"
#include "../../../csrc/backend/cuda/reducing/between.h"

namespace nos::cuda {
namespace {

// The numbers of all lanes of a warp, for fold_lanes.
using LaneNumbers = std::array<double, 32>;
template <Fold F>
struct HostLanes {
  static LaneNumbers exchange(const LaneNumbers& v, size_t mask) {
    LaneNumbers out;
    for (size_t lane = 0; lane < 32; ++lane) out[lane] = v[lane ^ mask];
    return out;
  }
  static LaneNumbers choose(size_t mask, const LaneNumbers& a, const LaneNumbers& b) {
    LaneNumbers out;
    for (size_t lane = 0; lane < 32; ++lane) out[lane] = lane & mask ? a[lane] : b[lane];
    return out;
  }
  static LaneNumbers join(const LaneNumbers& a, const LaneNumbers& b) {
    LaneNumbers out;
    for (size_t lane = 0; lane < 32; ++lane) out[lane] = fold_join<F>(a[lane], b[lane]);
    return out;
  }
};

// The threads run one after the other, so a warp's numbers are kept until all lanes have come.
class Warps {
 public:
  template <Fold F>
  void come(uint32_t lane, const double (&y)[4], double* to) {
    Meeting& m = meetings_[to];
    for (size_t e = 0; e < 4; ++e) m.y[e][lane] = y[e];
    if (++m.lanes < 32) return;
    *to = fold_lanes(HostLanes<F>(), m.y)[0];
    meetings_.erase(to);
  }
  // What the lanes of a warp do with the largest of their numbers, in their n-th meeting of this kind.
  void come(uint32_t thread, uint32_t n, uint32_t x, std::function<void(uint32_t)> then) {
    Largest& m = largest_[{thread / 32, n}];
    m.x = std::max(m.x, x);
    m.then.push_back(std::move(then));
    if (m.then.size() < 32) return;
    for (const auto& lane : m.then) lane(m.x);
    largest_.erase({thread / 32, n});
  }
  void check_complete() const {
    if (!meetings_.empty() || !largest_.empty())
      throw std::logic_error("some lanes of a warp do not come where the others meet");
  }

 private:
  struct Meeting {
    int lanes = 0;
    LaneNumbers y[4];
  };
  struct Largest {
    uint32_t x = 0;
    std::vector<std::function<void(uint32_t)>> then;
  };
  std::map<double*, Meeting> meetings_;
  std::map<std::pair<uint32_t, uint32_t>, Largest> largest_;
};

struct HostContext {
  uint32_t thread_, threads_;
  Warps* warps = nullptr;
  mutable uint32_t meetings_ = 0;
  uint32_t thread() const { return thread_; }
  uint32_t threads() const { return threads_; }
  template <Fold F>
  void fold(const double (&y)[4], double* to) const {
    warps->come<F>(thread_ & 31u, y, to);
  }
  template <class Then>
  void with_largest(uint32_t x, const Then& then) const {
    warps->come(thread_, meetings_++, x, then);
  }
};

template <class T, int E, bool Mixed, bool Folds, bool Codes = false>
void host_launch(const Launch& launch, size_t blocks, const Shape& shape) {
  std::vector<std::max_align_t> memory(shape.shared / sizeof(std::max_align_t) + 1);
  auto* dynamic = reinterpret_cast<unsigned char*>(memory.data());
  auto* code = reinterpret_cast<Decoded<T>*>(dynamic);
  const auto threads = static_cast<uint32_t>(shape.threads);
  for (uint32_t block = 0; block < blocks; ++block) {
    Shared<T> shared;
    Warps warps;
    for (uint32_t x = 0; x < threads; ++x)
      set_up<T, Folds, Codes>(HostContext{x, threads}, launch, block, shared, code);
    for (uint32_t x = 0; x < threads; ++x)
      run<T, E, Mixed, Folds, Codes>(HostContext{x, threads, &warps}, shared, code,
                                     reinterpret_cast<T*>(dynamic + launch.code_room) + x);
    warps.check_complete();
  }
}

}  // namespace

void host_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape) {
  if (kind == Kind::f32)
    host_launch<float, kElements32, false, false>(launch, blocks, shape);
  else if (kind == Kind::mixed)
    host_launch<float, kElements32, true, false>(launch, blocks, shape);
  else if (kind == Kind::quantized)
    host_launch<float, kFoldElements, true, true, true>(launch, blocks, shape);
  else
    host_launch<double, kElements64, false, false>(launch, blocks, shape);
}

void host_folding_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape) {
  if (kind == Kind::quantized)
    host_launch(kind, launch, blocks, shape);
  else if (kind == Kind::f32)
    host_launch<float, kFoldElements, false, true>(launch, blocks, shape);
  else if (kind == Kind::mixed)
    host_launch<float, kFoldElements, true, true>(launch, blocks, shape);
  else
    host_launch<double, kFoldElements, false, true>(launch, blocks, shape);
}

void host_between(Stage stage, const Between& a, size_t blocks, int threads, uint32_t parts) {
  const auto each = [&](const auto& phase, uint32_t block) {
    Warps warps;
    for (uint32_t x = 0; x < static_cast<uint32_t>(threads) * parts; ++x)
      phase(HostContext{x, static_cast<uint32_t>(threads) * parts, &warps}, a, a.first + block);
    warps.check_complete();
  };
  for (uint32_t b = 0; b < blocks; ++b) {
    if (stage == Stage::begin) {
      each([](auto&&... arguments) { copy_row(arguments...); }, b);
      each([](auto&&... arguments) { read_states(arguments...); }, b);
    } else if (stage == Stage::first_level) {
      each([](auto&&... arguments) { fold_part(arguments...); }, b);
    } else if (stage == Stage::finish) {
      for (int level = static_cast<int>(a.done); level < levels_left(a, a.first + b); ++level)
        each([level](auto&&... arguments) { fold_sums(arguments..., level); }, b);
      each([](auto&&... arguments) { conclude(arguments...); }, b);
    } else {
      each([](auto&&... arguments) { add_totals(arguments...); }, b);
      each([](auto&&... arguments) { conclude_all(arguments...); }, b);
    }
  }
}

void host_run(const ReducingImage& image, const StepArgs& args) {
  std::vector<double> given(step_block_bytes(Kind::f64, args) / sizeof(double));
  write_step_block(Kind::f64, args, reinterpret_cast<unsigned char*>(given.data()));
  host_run(image, reinterpret_cast<const unsigned char*>(given.data()), args.num_rows);
}

void host_run(const ReducingImage& image, const unsigned char* given, size_t rows) {
  std::vector<std::max_align_t> parts[3];
  const auto memory = [&](size_t k, size_t bytes) {
    parts[k].resize(bytes / sizeof(std::max_align_t) + 1);
    auto* begin = reinterpret_cast<unsigned char*>(parts[k].data());
    std::memset(begin, 0xff, bytes);  // memory that is read before it is written shows
    return begin;
  };
  const ReducingImage::Memory at{memory(0, image.fixed_bytes()), memory(1, image.tensor_bytes()),
                                 memory(2, image.scratch_bytes()), given, static_cast<uint32_t>(rows)};
  image.write_fixed(at.fixed);
  image.write_tensors(at.tensors);
  host_between(Stage::begin, image.between(at), image.pieces(), kBeginThreads);
  for (const ReducingImage::Pass& pass : image.passes()) {
    for (const ReducingImage::Sweep& sweep : pass.sweeps) {
      const Launch launch = image.launch(at, sweep);
      if (sweep.folds)
        host_folding_launch(sweep.kind, launch, sweep.chunks.size(), sweep.shape);
      else
        host_launch(sweep.kind, launch, sweep.chunks.size(), sweep.shape);
    }
    if (pass.parts)
      host_between(Stage::first_level, image.between(at, pass.first_turn), pass.turns, kLevelThreads, pass.parts);
    host_between(Stage::finish, image.between(at, pass.first_turn, pass.parts ? 1 : 0), pass.turns,
                 pass.finish_threads);
    host_between(Stage::join, image.between(at, pass.first_group), pass.groups, kJoinThreads);
  }
}

void host_run(const std::vector<Batch>& batches, const ProgramTable& table, const StepArgs& args, size_t shared_limit,
              CompiledKernel compiled) {
  for (const Batch& batch : batches) {
    const Shape shape = block_shape(batch.kind, table.longest, table.overflow, batch.longest_chunk, shared_limit);
    std::vector<unsigned char> block(step_block_bytes(batch.kind, args));
    Launch launch{};
    launch.tensors = batch.tensors.data();
    launch.chunks = batch.chunks.data();
    launch.programs = table.programs.data();
    launch.code = table.code.data();
    launch.rows = static_cast<uint32_t>(args.num_rows);
    launch.chunk_elements = batch.chunk_elements;
    launch.code_room = static_cast<uint32_t>(shape.code_room);
    if (block.size() > kInlineBytes) launch.step_block = block.data();
    write_step_block(batch.kind, args, block.size() > kInlineBytes ? block.data() : launch.inline_block);
    if (compiled)
      compiled(&launch, static_cast<uint32_t>(batch.chunks.size()));
    else
      host_launch(batch.kind, launch, batch.chunks.size(), shape);
  }
}

void host_prologue(const Prologue& a, uint32_t blocks, size_t shared, PrologueOrder order) {
  const auto nth = [&](uint32_t k, uint32_t count) { return order.backwards ? count - 1 - k : k; };
  for (uint32_t b = 0; b < blocks; ++b) {
    std::vector<double> slots(shared / sizeof(double), std::numeric_limits<double>::quiet_NaN());
    const auto each = [&](const auto& phase) {
      for (uint32_t x = 0; x < order.threads; ++x)
        phase(HostContext{nth(x, order.threads), order.threads}, a, nth(b, blocks), slots.data());
    };
    each([](auto&&... arguments) { gather(arguments...); });
    each([](auto&&... arguments) { evaluate(arguments...); });
    each([](auto&&... arguments) { publish(arguments...); });
  }
}

void host_run(const CapturedImage& image, const ReducingImage* passes, size_t shared_limit, PrologueOrder order) {
  const Prologue prologue = image.prologue();
  host_prologue(prologue, prologue.num_rows, prologue_shared(prologue), order);
  for (size_t i = 0; i < image.batches().size(); ++i) {
    const Batch& batch = image.batches()[i];
    const Shape shape = block_shape(batch.kind, image.capacity().instructions, image.capacity().temporaries,
                                    batch.longest_chunk, shared_limit);
    host_launch(batch.kind, image.launch(i, shape.code_room), batch.chunks.size(), shape);
  }
  if (passes) host_run(*passes, image.given(), image.rows());
}

}  // namespace nos::cuda
