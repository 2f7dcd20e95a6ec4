// The CUDA back-end's host side against a device that is as lazy as CUDA allows: work given to a stream runs only when
// somebody waits for it. Memory that is written or given away too early, or a missing order between streams, then shows
// in the results. Built with the sanitizers and run by test_fake_device.py; argv: files with bytecode.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <random>

#include "../../../csrc/backend/backend.h"
#include "../../../csrc/backend/cuda/jit/jit.h"
#include "../../../csrc/backend/cuda/runtime/captured_step.h"
#include "../../../csrc/backend/cuda/runtime/kernels.h"
#include "../../../csrc/backend/cuda/runtime/launch.h"
#include "host_run.h"

using namespace nos;

// ---- the device
// ------------------------------------------------------------------------------------------------------
struct CUstream_st {
  std::deque<std::function<void()>> waiting;
  size_t given = 0, done = 0;
  bool capturing = false;
  std::vector<std::function<void()>> graph;

  void give(std::function<void()> work) {
    if (capturing) return graph.push_back(std::move(work));
    waiting.push_back(std::move(work));
    ++given;
  }
  void run_to(size_t position) {
    while (done < position) {
      const auto work = std::move(waiting.front());
      waiting.pop_front();
      ++done;
      work();
    }
  }
};
struct CUevent_st {
  cudaStream_t stream = nullptr;
  size_t position = 0;
  bool captured = false;  // recorded in a capture: whoever waits for it joins the capture
};

namespace {
CUstream_st g_streams[3];  // the last one is what cudaStreamCreate gives
cudaStreamCaptureMode g_mode = cudaStreamCaptureModeGlobal;
std::map<void*, size_t> g_device, g_pinned;
constexpr cudaError_t kOk = cudaSuccess;

void run_everything() {
  for (auto& s : g_streams) s.run_to(s.given);
}
bool is_any_capturing() {
  return std::any_of(std::begin(g_streams), std::end(g_streams), [](const auto& s) { return s.capturing; });
}
// A capture that is over before it is ended: of a forbidden call, or of a stream that joined and did not come back.
const char* g_spoilt = nullptr;
cudaError_t spoil(const char* why) { return g_spoilt = why, cudaErrorStreamCaptureUnsupported; }
// What CUDA forbids while a stream is captured, unless the thread's mode is relaxed.
bool forbidden(const char* call) {
  if (!is_any_capturing() || g_mode == cudaStreamCaptureModeRelaxed) return false;
  return spoil(call), true;
}
void begin_capture(cudaStream_t stream) {
  stream->graph.clear();
  stream->capturing = true;
  g_spoilt = nullptr;
}
// Exits when the capture is not a graph of the one stream.
void end_capture(cudaStream_t stream, const char* what) {
  stream->capturing = false;
  if (is_any_capturing()) g_spoilt = "another stream has joined it";
  if (!g_spoilt) return;
  std::printf("%s: the capture is spoilt: %s\n", what, g_spoilt);
  std::exit(1);
}
cudaError_t allocate(std::map<void*, size_t>& list, void** out, size_t bytes) {
  if (forbidden("an allocation")) return cudaErrorStreamCaptureUnsupported;
  *out = std::malloc(bytes);
  std::memset(*out, 0xff, bytes);  // memory that is read before it is written shows
  list[*out] = bytes;
  return kOk;
}
bool inside(const std::map<void*, size_t>& list, const void* at, size_t bytes) {
  for (const auto& [begin, size] : list)
    if (at >= begin && static_cast<const char*>(at) + bytes <= static_cast<char*>(begin) + size) return true;
  return false;
}
// Addresses in g_kernels name the kernels: the interpreters by kind, the prologue, the folding interpreters by kind,
// and what runs between passes.
constexpr int kPrologueKernel = cuda::kKinds, kFoldingKernels = kPrologueKernel + 1,
              kBetweenKernels = kFoldingKernels + cuda::kKinds;
char g_kernels[kBetweenKernels + 4];
}  // namespace

extern "C" {
cudaError_t cudaGetDevice(int* d) { return *d = 0, kOk; }
cudaError_t cudaSetDevice(int) { return kOk; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : 64 * 1024;
  return kOk;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = new CUevent_st, kOk; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, kOk; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  *e = {s, s->given, s->capturing};
  return kOk;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (forbidden("cudaEventSynchronize")) return cudaErrorStreamCaptureUnsupported;
  if (e->captured) return spoil("waiting for an event of the capture");
  if (e->stream) e->stream->run_to(e->position);
  return kOk;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (forbidden("cudaEventQuery")) return cudaErrorStreamCaptureUnsupported;
  if (e->captured) return spoil("asking an event of the capture");
  return !e->stream || e->stream->done >= e->position ? kOk : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  const CUevent_st event = *e;
  if (event.captured) return s->capturing = true, kOk;
  if (s->capturing && event.stream) return spoil("a dependency on work outside the capture");
  if (event.stream) s->give([event] { event.stream->run_to(event.position); });
  return kOk;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  if (s->capturing) return spoil("cudaStreamSynchronize of the captured stream");
  if (forbidden("cudaStreamSynchronize")) return cudaErrorStreamCaptureUnsupported;
  return s->run_to(s->given), kOk;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) { return std::swap(*mode, g_mode), kOk; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return *s = &g_streams[2], kOk; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  *status = s->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return kOk;
}
cudaError_t cudaDeviceSynchronize() {
  if (is_any_capturing()) return spoil("cudaDeviceSynchronize");
  return run_everything(), kOk;
}
cudaError_t cudaMalloc(void** p, size_t n) { return allocate(g_device, p, n); }
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return allocate(g_pinned, p, n); }
// Freeing waits for the device, which no mode allows while a stream is captured.
cudaError_t release(std::map<void*, size_t>& list, void* p) {
  if (is_any_capturing()) return spoil("freeing memory");
  run_everything();
  list.erase(p);
  std::free(p);
  return kOk;
}
cudaError_t cudaFree(void* p) { return release(g_device, p); }
cudaError_t cudaFreeHost(void* p) { return release(g_pinned, p); }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return kOk; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
  const bool up = kind == cudaMemcpyHostToDevice;
  if (!inside(g_device, up ? to : from, n) || (up && !inside(g_pinned, from, n))) return cudaErrorInvalidValue;
  s->give([=] { std::memcpy(to, from, n); });
  return kOk;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return kOk; }
cudaError_t cudaGetLastError() { return kOk; }
const char* cudaGetErrorString(cudaError_t) { return "error"; }
const char* cudaGetErrorName(cudaError_t) { return "error"; }
cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t s) {
  const auto which = static_cast<const char*>(kernel) - g_kernels;
  if (which >= kBetweenKernels) {
    s->give([=, between = *static_cast<cuda::Between*>(arguments[0])] {
      cuda::host_between(static_cast<cuda::Stage>(which - kBetweenKernels), between, grid.x, static_cast<int>(block.x),
                         grid.y);
    });
  } else if (which >= kFoldingKernels) {
    s->give([=, launch = *static_cast<cuda::Launch*>(arguments[0])] {
      cuda::host_folding_launch(static_cast<cuda::Kind>(which - kFoldingKernels), launch, grid.x,
                                {static_cast<int>(block.x), launch.code_room, shared});
    });
  } else if (which == kPrologueKernel) {
    s->give([=, prologue = *static_cast<cuda::Prologue*>(arguments[0])] {
      cuda::host_prologue(prologue, grid.x, shared, {.threads = block.x});
    });
  } else {
    s->give([=, launch = *static_cast<cuda::Launch*>(arguments[0])] {
      cuda::host_launch(static_cast<cuda::Kind>(which), launch, grid.x,
                        {static_cast<int>(block.x), launch.code_room, shared});
    });
  }
  return kOk;
}
}  // extern "C"

namespace nos::cuda {
const void* interpreter_of(Kind kind) { return g_kernels + static_cast<int>(kind); }
const void* prologue_kernel() { return g_kernels + kPrologueKernel; }
const void* folding_interpreter_of(Kind kind) { return g_kernels + kFoldingKernels + static_cast<int>(kind); }
const void* begin_kernel() { return g_kernels + kBetweenKernels + static_cast<int>(Stage::begin); }
const void* first_level_kernel() { return g_kernels + kBetweenKernels + static_cast<int>(Stage::first_level); }
const void* finish_kernel() { return g_kernels + kBetweenKernels + static_cast<int>(Stage::finish); }
const void* join_kernel() { return g_kernels + kBetweenKernels + static_cast<int>(Stage::join); }
namespace jit {
const Kernel* request(const Program&, const std::array<DType, kMaxSlots>&, Mode) { return nullptr; }
Mode mode() { return Mode::never; }
}  // namespace jit
}  // namespace nos::cuda

// ---- the test
// --------------------------------------------------------------------------------------------------------
namespace {

constexpr size_t kLists = 5;  // p, g and three states

// Tensors, twice: those of the device and those of the expectation.
struct Tensors {
  std::vector<std::vector<float>> lists[kLists];
  // numbers: the slots in which a tensor has one number for each slice, a bit each.
  Plan plan(uint32_t population, uint32_t rows, uint32_t numbers = 0) {
    std::vector<TensorList> refs(kLists);
    std::vector<std::array<int64_t, 2>> shapes, strides;
    const auto slices = static_cast<int64_t>(population ? population : 1);
    for (const auto& x : lists[0]) {
      const auto n = static_cast<int64_t>(x.size()) / slices;
      shapes.push_back({slices, n});
      strides.push_back({n, 1});
    }
    for (size_t l = 0; l < kLists; ++l)
      for (size_t i = 0; i < lists[l].size(); ++i) {
        TensorRef t;
        t.data = lists[l][i].data();
        t.shape = shapes[i].data();
        t.strides = strides[i].data();
        t.numel = static_cast<int64_t>(lists[l][i].size());
        t.ndim = 2;
        if (numbers >> l & 1) {
          static constexpr int64_t kOne = 1;
          t.strides = &kOne;
          t.numel = slices;
          t.ndim = population ? 1 : 0;
        }
        refs[l].tensors.push_back(t);
      }
    Plan plan = make_plan(refs, 0, population, numbers);
    if (!population)
      for (PlannedTensor& t : plan.tensors) t.row = t.index % rows;
    return plan;
  }
};

Tensors make(size_t slices) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Tensors out;
  for (auto& list : out.lists)
    for (const size_t n : {size_t{3}, size_t{700}, size_t{2500}}) {
      list.emplace_back(n * slices);
      for (float& x : list.back()) x = normal(random);
    }
  return out;
}

void expect_same(const Tensors& a, const Tensors& b, const char* what) {
  for (size_t l = 0; l < kLists; ++l)
    for (size_t i = 0; i < a.lists[l].size(); ++i)
      for (size_t k = 0; k < a.lists[l][i].size(); ++k) {
        const float x = a.lists[l][i][k], y = b.lists[l][i][k];
        if (std::memcmp(&x, &y, sizeof x) != 0 && (x == x || y == y)) {
          std::printf("%s: list %zu tensor %zu element %zu is %g, expected %g\n", what, l, i, k, x, y);
          std::exit(1);
        }
      }
}

// The scalars of one step for each row.
struct Scalars {
  std::vector<std::vector<double>> slots;
  std::vector<const double*> rows;
  std::vector<size_t> sizes;
  std::vector<uint64_t> seeds;
  uint32_t step;
  Scalars(const std::vector<const Program*>& program_of_row, uint32_t step_, double lr) : step(step_) {
    for (size_t r = 0; r < program_of_row.size(); ++r) {
      const Program& p = *program_of_row[r];
      std::vector<double> hypers;
      for (const Hyper& h : p.hypers()) hypers.push_back(h.has_default ? h.value : lr / static_cast<double>(r + 1));
      slots.emplace_back(static_cast<size_t>(p.num_scalars()));
      p.eval_scalars(step, 100, hypers, slots.back());
      seeds.push_back(r);
    }
    for (const auto& s : slots) rows.push_back(s.data()), sizes.push_back(s.size());
  }
  StepArgs args() const { return {rows.data(), sizes.data(), rows.size(), seeds.data(), step, 1.0}; }
};

// One step of the expectation, at once.
void expect_step(const Plan& plan, const std::vector<const Program*>& programs, const StepArgs& args) {
  if (std::ranges::any_of(programs, &Program::has_tensor_scalars))
    cuda::host_run(cuda::ReducingImage(plan, programs, 4, 63 * 1024), args);
  else
    cuda::host_run(cuda::batches_of(plan, 4), cuda::program_table(programs), args, 63 * 1024);
}

// Steps on two streams in turn; gradients that move, and are overwritten once their step is over; jobs that end while
// their work is still waiting.
void eager(const std::vector<const Program*>& programs, uint32_t population, uint32_t rows, const char* what) {
  Tensors ours = make(population ? population : 1), theirs = ours;
  std::vector<const Program*> program_of_row;
  for (uint32_t r = 0; r < rows; ++r) program_of_row.push_back(programs[population ? r : 0]);
  std::vector<Tensors> moved;
  moved.reserve(100);
  uint32_t step = 0;
  for (int round = 0; round < 5; ++round) {
    std::shared_ptr<Job> job;
    for (int k = 0; k < 7; ++k) {
      ++step;
      cudaStream_t stream = &g_streams[(step / 3) % 2], other = &g_streams[1 - (step / 3) % 2];
      stream->give([other, end = other->given] { other->run_to(end); });  // the user's order of the tensors
      Plan plan = ours.plan(population, rows, number_slots(programs));
      if (k % 2) {
        moved.push_back(ours);  // gradients elsewhere, scaled so that stale addresses show
        for (auto& g : moved.back().lists[1])
          for (float& x : g) x *= static_cast<float>(step);
        for (size_t i = 0; i < plan.tensors.size(); ++i) plan.tensors[i].data[1] = moved.back().lists[1][i].data();
      }
      if (!job) {
        job = cuda_backend().prepare(std::move(plan), programs, {0, stream});
      } else {
        job->plan = std::move(plan);
        job->move({0, stream});
      }
      const Scalars scalars(program_of_row, step, 0.1 * step);
      job->run(scalars.args(), programs, {0, stream});
      Plan expected = theirs.plan(population, rows, number_slots(programs));
      std::vector<std::vector<float>> scaled = theirs.lists[1];
      if (k % 2)
        for (size_t i = 0; i < scaled.size(); ++i) {
          for (float& x : scaled[i]) x *= static_cast<float>(step);
          expected.tensors[i].data[1] = scaled[i].data();
        }
      expect_step(expected, programs, scalars.args());
    }
  }
  run_everything();
  expect_same(ours, theirs, what);
}

// A captured step: replays, other scalars, another rule, more replays, all before the device has done anything.
void captured(const std::vector<const Program*>& programs, const Program& later, const char* what) {
  Tensors ours = make(1), theirs = ours;
  const uint32_t row_program[] = {0};
  cudaStream_t stream = &g_streams[0];
  const Place here{0, stream};
  cuda::CapturedStep step(ours.plan(0, 1), programs, row_program, {}, false, here);
  const auto set = [&](const Program& p, double lr) {
    std::vector<double> hypers;
    for (const Hyper& h : p.hypers()) hypers.push_back(h.has_default ? h.value : lr);
    step.set_row(0, 0, 100, hypers, {}, 0, here);
  };
  const auto restart = [&] { step.set_head(0, 1.0, Rounding::nearest, nullptr, here); };
  const auto replay = [&](const Program& p, uint32_t first, double lr) {
    for (uint32_t t = first; t < first + 3; ++t) {
      for (const auto& work : stream->graph) stream->give(work);
      const std::vector<const Program*> list = {&p};
      expect_step(theirs.plan(0, 1), list, Scalars(list, t, lr).args());
    }
  };
  set(*programs[0], 0.1);
  restart();
  begin_capture(stream);
  step.launch(here);
  end_capture(stream, what);
  replay(*programs[0], 1, 0.1);
  set(*programs[0], 0.01);
  replay(*programs[0], 4, 0.01);
  step.load(0, later, here);
  set(later, 0.5);
  restart();
  replay(later, 1, 0.5);
  if (step.steps_done(here) != 3) {
    std::printf("%s: step is %u, expected 3\n", what, step.steps_done(here));
    std::exit(1);
  }
  expect_same(ours, theirs, what);
}

// A step made inside the capture that holds it, as an optimizer's with capturable=True is: the number of the step and a
// hyperparameter of each group lie in device memory, which the graph and the user write.
void made_inside(const Program& p, const char* what) {
  constexpr uint32_t kRows = 3;
  Tensors ours = make(1), theirs = ours;
  const std::vector<const Program*> programs = {&p}, program_of_row(kRows, &p);
  const std::vector<uint32_t> row_program(kRows, 0);
  cudaStream_t stream = &g_streams[0];
  double* counter = nullptr;
  double* lr = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&counter), sizeof *counter);
  cudaMalloc(reinterpret_cast<void**>(&lr), kRows * sizeof *lr);
  stream->give([=] { *counter = 6; });
  begin_capture(stream);
  std::optional<cuda::CapturedStep> step;
  const Place here{0, stream};
  const Capacity own{0, 0, 0};
  step.emplace(ours.plan(0, kRows, number_slots(programs)), programs, row_program, own, true, here);
  for (uint32_t r = 0; r < kRows; ++r) {
    std::vector<double> hypers;
    std::vector<const void*> sources;
    for (const Hyper& h : p.hypers()) {
      hypers.push_back(h.has_default ? h.value : NAN);
      sources.push_back(h.has_default ? nullptr : lr + r);
    }
    step->set_row(r, r, 100, hypers, sources, ~uint64_t{0}, here);
  }
  step->set_head(0, 1.0, Rounding::nearest, counter, here);
  stream->give([=] { *counter += 1; });
  step->launch(here);
  end_capture(stream, what);
  if (g_mode != cudaStreamCaptureModeGlobal) {
    std::printf("%s: the capture mode was left changed\n", what);
    std::exit(1);
  }
  for (uint32_t t = 7; t < 12; ++t) {
    stream->give([=] {
      for (uint32_t r = 0; r < kRows; ++r) lr[r] = 0.1 * t / (r + 1);
    });
    for (const auto& work : stream->graph) stream->give(work);
    expect_step(theirs.plan(0, kRows, number_slots(programs)), programs, Scalars(program_of_row, t, 0.1 * t).args());
  }
  step.reset();                                    // while the replays are still waiting
  std::vector<std::shared_ptr<cuda::Twin>> taken;  // all that the pool has
  for (size_t bytes = 4096; bytes <= size_t{1} << 18; bytes *= 2)
    for (int i = 0; i < 70; ++i) {
      taken.push_back(cuda::take_twin(0, bytes));
      std::memset(taken.back()->host(), 0xff, bytes);
      taken.back()->use_on(&g_streams[1]);
      taken.back()->upload(0, bytes, &g_streams[1]);
    }
  g_streams[1].run_to(g_streams[1].given);
  run_everything();
  expect_same(ours, theirs, what);
  cudaFree(counter);
  cudaFree(lr);
}

// Whatever ends inside a capture, on its own stream or on another, leaves the capture whole; what is made inside it
// takes nothing from the pool that would join it.
void ends_inside(const Program& p, const char* what) {
  Tensors ours = make(1), theirs = ours;
  const std::vector<const Program*> programs = {&p};
  const std::vector<uint32_t> row_program(1, 0);
  cudaStream_t stream = &g_streams[0];
  const Place here{0, stream};
  const auto captured_step = [&] {
    auto step = std::make_unique<cuda::CapturedStep>(ours.plan(0, 1, number_slots(programs)), programs, row_program,
                                                     Capacity{}, true, here);
    std::vector<double> hypers;
    for (const Hyper& h : p.hypers()) hypers.push_back(h.has_default ? h.value : 0.1);
    step->set_row(0, 0, 100, hypers, {}, 0, here);
    step->set_head(0, 1.0, Rounding::nearest, nullptr, here);
    return step;
  };
  const auto eager_step = [&](cudaStream_t on) {
    auto job = cuda_backend().prepare(theirs.plan(0, 1, number_slots(programs)), programs, {0, on});
    job->run(Scalars(programs, 1, 0.1).args(), programs, {0, on});
    return job;
  };
  auto replayed = captured_step();  // a graph of it may still run when it ends
  begin_capture(stream);
  replayed->launch(here);
  end_capture(stream, what);
  auto kept = captured_step();
  auto edited = captured_step();
  edited->launch(here);                                     // a warm-up on the stream that is captured next
  std::vector<std::unique_ptr<cuda::CapturedStep>> unused;  // with uploads on the stream that nobody has waited for
  for (int k = 0; k < 3; ++k) unused.push_back(captured_step());
  std::vector<std::shared_ptr<Job>> ended;
  for (cudaStream_t on : {stream, &g_streams[1]})
    for (int k = 0; k < 40; ++k) ended.push_back(eager_step(on));  // more than the pool keeps
  run_everything();
  begin_capture(stream);
  kept->launch(here);
  replayed.reset();
  ended.clear();
  unused.clear();
  captured_step();
  edited->set_head(5, 1.0, Rounding::nearest, nullptr, here);
  kept->launch(here);
  end_capture(stream, what);
  cuda::CapturedStep::settle();
  if (edited->steps_done(here) != 5) {
    std::printf("%s: the edit is lost\n", what);
    std::exit(1);
  }
  kept.reset();
  edited.reset();
  cuda::CapturedStep::settle();
}

// Launches stay as they were captured, so passes cannot change.
template <class F>
void expect_refused(const F& work, const char* what) {
  try {
    work();
  } catch (const TensorError& error) {
    if (std::strstr(error.what(), "cannot be loaded, as ")) return;
    std::printf("%s: refused with other words: %s\n", what, error.what());
    std::exit(1);
  }
  std::printf("%s: not refused\n", what);
  std::exit(1);
}
void refuses(const Program& reducing, const Program& other) {
  Tensors ours = make(1);
  const std::vector<const Program*> programs = {&reducing}, others = {&other};
  const uint32_t row_program[] = {0};
  const Place here{0, &g_streams[0]};
  const auto plain = cuda_backend().capture(ours.plan(0, 1), others, row_program, {}, false, here);
  expect_refused([&] { plain->load(0, reducing, here); }, "a rule with reductions in the place of another");
  const auto passes =
      cuda_backend().capture(ours.plan(0, 1, number_slots(programs)), programs, row_program, {}, false, here);
  expect_refused([&] { passes->load(0, other, here); }, "another in the place of a rule with reductions");
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Program> programs;
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)), {});
    programs.push_back(Program::parse(bytes));
  }
  const Program &a = programs[0], &b = programs[1], &c = programs[2];
  eager({&a}, 0, 1, "one rule");
  eager({&b}, 0, 3, "groups");
  std::vector<const Program*> many;
  for (int k = 0; k < 40; ++k) many.push_back(&programs[static_cast<size_t>(k) % 3]);
  eager(many, 40, 40, "population");  // scalars beyond the kernel arguments
  captured({&a}, b, "captured");
  captured({&c}, a, "captured, later rule with fewer states");
  made_inside(a, "made inside a capture");
  made_inside(b, "made inside a capture, a rule that reads t and T");
  ends_inside(a, "ends inside a capture");
  const Program &d = programs[3], &e = programs[4], &f = programs[5];
  eager({&d}, 0, 1, "a rule with reductions");
  eager({&d}, 0, 3, "a rule with reductions, groups");
  eager({&d, &f, &e, &d, &f, &e, &e}, 7, 7, "a population in which some have reductions");
  made_inside(d, "made inside a capture, a rule with reductions");
  made_inside(f, "made inside a capture, a rule without states");
  ends_inside(d, "ends inside a capture, a rule with reductions");
  refuses(d, a);
  std::printf("ok\n");
}
