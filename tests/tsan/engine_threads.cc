// The CPU engine under ThreadSanitizer: many threads prepare and run shared programs at once, and every result has the
// bits of a run alone. `make tsan` builds and runs it.
//
//   tsan_engine FOLDER            bytecode files, as tests/fuzz/make_corpus.py writes them
//   tsan_engine FOLDER --plant    two threads write one parameter: ThreadSanitizer must end the process
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/backend/cpu/engine.h"
#include "../../csrc/program/program.h"

namespace {

using Bytes = std::vector<uint8_t>;
using nos::DType;
using nos::Program;

constexpr int kThreads = 4;
constexpr int64_t kSmall = 37, kLarge = 60'000;  // elements: one chunk, and work for several threads
constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};

void in_threads(const std::function<void(int)>& work) {
  std::barrier start(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      work(i);
    });
  for (std::thread& t : threads) t.join();
}

// What one call needs, in memory of its own.
struct Call {
  std::vector<const Program*> programs;  // one, or one per slice of a population
  DType dtype = DType::f32;
  int64_t numel = kSmall;
  double factor = 1;
  nos::Rounding rounding = nos::Rounding::nearest;

  std::vector<std::vector<char>> memory = {};

  // memory as every run finds it: small positive numbers, which stay finite for a while under any rule
  std::shared_ptr<nos::cpu::Prepared> prepare() {
    int slots = 0;
    for (const Program* p : programs) slots = std::max(slots, nos::bytecode::kFirstState + p->num_states());
    nos::PlannedTensor tensor{};
    tensor.numel = numel;
    tensor.slices = static_cast<uint32_t>(programs.size());
    memory.clear();
    for (size_t s = 0; s < static_cast<size_t>(slots); ++s) {
      const auto bytes = static_cast<size_t>(numel * tensor.slices * nos::size_of(dtype));
      memory.emplace_back(bytes, static_cast<char>(0x3b - s));
      tensor.data[s] = memory.back().data();
      tensor.dtype[s] = dtype;
    }
    nos::Plan plan;
    plan.num_slots = slots;
    plan.tensors.push_back(tensor);
    return nos::cpu::prepare(std::move(plan), programs);
  }

  void run(nos::cpu::Prepared& job, int steps = 2) const {
    std::vector<std::vector<double>> scalars;
    std::vector<const double*> rows;
    std::vector<size_t> sizes;
    std::vector<uint64_t> seeds;
    for (int step = 1; step <= steps; ++step) {
      scalars.clear(), rows.clear(), sizes.clear(), seeds.clear();
      for (const Program* p : programs) {
        std::vector<double> hypers;
        for (const nos::Hyper& h : p->hypers()) hypers.push_back(h.has_default ? h.value : 0.1);
        scalars.emplace_back(static_cast<size_t>(p->num_scalars()));
        p->eval_scalars(step, 10, hypers, scalars.back());
        seeds.push_back(7 + seeds.size());
        sizes.push_back(scalars.back().size());
      }
      for (const auto& row : scalars) rows.push_back(row.data());
      job.run({rows.data(), sizes.data(), rows.size(), seeds.data(), static_cast<uint32_t>(step), factor, rounding},
              programs);
    }
  }

  std::vector<std::vector<char>> result() {
    run(*prepare());
    return memory;
  }
};

std::vector<Bytes> read_corpus(const char* folder) {
  std::vector<Bytes> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    out.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return out;
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "tsan_engine: %s: not the bits of a run alone\n", what);
  std::exit(1);
}

// Thread i's call: all threads share the programs, and each takes them its own way.
Call call_of(int thread, int round, std::vector<const Program*> programs, int64_t numel) {
  return {std::move(programs), kTypes[(thread + round) % 4], numel, round % 2 ? -0.5 : 1.0, round % 3 == 2};
}

// The first use of every program, by all threads at once: lowering, the native tier's code for each choice of dtypes.
void first_use(const std::vector<Bytes>& corpus) {
  for (const Bytes& bytes : corpus)
    for (int round = 0; round < 4; ++round) {
      const Program shared = Program::parse(bytes), alone = Program::parse(bytes);
      std::vector<std::vector<char>> got[kThreads];
      in_threads([&](int i) { got[i] = call_of(i, round, {&shared}, kSmall).result(); });
      for (int i = 0; i < kThreads; ++i)
        if (got[i] != call_of(i, round, {&alone}, kSmall).result()) fail("first use");
    }
}

// Large tensors, each call on several threads of its own, populations of all programs with the same states among them.
void large_calls(const std::vector<Program>& programs) {
  std::vector<const Program*> alike;
  for (const Program& p : programs)
    if (p.num_states() == 1) alike.push_back(&p);
  std::vector<std::vector<char>> got[kThreads];
  for (int round = 0; round < 6; ++round) {
    const bool population = round % 2;
    const auto call = [&](int i) {
      const Program* one = &programs[static_cast<size_t>(round * kThreads + i) % programs.size()];
      return call_of(i, round, population ? alike : std::vector{one}, kLarge / (population ? 8 : 1));
    };
    in_threads([&](int i) { got[i] = call(i).result(); });
    for (int i = 0; i < kThreads; ++i)
      if (got[i] != call(i).result()) fail("large calls");
  }
}

// One job whose code is asked for by all threads, as calls on one optimizer's plan may; and jobs that outlive programs.
void shared_jobs(const std::vector<Bytes>& corpus) {
  for (const Bytes& bytes : corpus) {
    auto program = std::make_unique<Program>(Program::parse(bytes));
    Call call{{program.get()}};
    std::shared_ptr<nos::cpu::Prepared> job = call.prepare();
    in_threads([&](int i) {
      const std::shared_ptr<nos::cpu::Prepared> mine = job;
      if (mine->native_code(i % 2).size() != mine->native_code(i % 2).size()) std::abort();
    });
    program.reset();
    in_threads([&](int i) {
      const Program other = Program::parse(bytes);
      Call{{&other}, kTypes[i % 4]}.result();
      if (other.disassemble().empty() || other.identity().empty()) std::abort();
      if (i == 0) job.reset();
    });
  }
}

// Blocks and chunks of many sizes. They are set between calls, under the lock that prepare() has in the Python module.
void tunings(const std::vector<Program>& programs) {
  std::mutex gil;
  const auto call = [&](int i) { return call_of(i, 0, {&programs[static_cast<size_t>(i) % programs.size()]}, 9'000); };
  std::vector<std::vector<char>> want[kThreads], got[kThreads];
  for (int i = 0; i < kThreads; ++i) want[i] = call(i).result();
  in_threads([&](int i) {
    for (int round = 0; round < 8; ++round) {
      Call mine = call(i);
      std::unique_lock lock(gil);
      nos::cpu::set_tuning({.block = 4 * (1 + round), .chunk = 256 * (1 + i), .threads = 1 + (i + round) % 3});
      const auto job = mine.prepare();
      lock.unlock();
      mine.run(*job);
      got[i] = mine.memory;
      if (got[i] != want[i]) fail("tunings");
    }
  });
  nos::cpu::set_tuning({});
}

void plant(const std::vector<Program>& programs) {
  Call call{{&programs.front()}};
  const auto job = call.prepare();
  in_threads([&](int) { call.run(*job); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: tsan_engine FOLDER [--plant]\n"), 2;
  const std::vector<Bytes> corpus = read_corpus(argv[1]);
  std::vector<Program> programs;
  for (const Bytes& bytes : corpus) programs.push_back(Program::parse(bytes));
  if (programs.empty()) return std::fprintf(stderr, "tsan_engine: no programs in %s\n", argv[1]), 2;
  if (argc > 2 && std::strcmp(argv[2], "--plant") == 0) {
    plant(programs);
    return 0;
  }
  first_use(corpus);
  large_calls(programs);
  shared_jobs(corpus);
  tunings(programs);
  std::printf("tsan_engine: %zu programs, %d threads, native tier %s, no race\n", programs.size(), kThreads,
              nos::cpu::native::status());
}
