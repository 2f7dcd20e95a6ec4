// Times what Builder::choose_quotients (csrc/backend/cpu/native/graph.cc) decides: the AVX-512 code of a program as it
// is, and with every division done by the divider, in turn, on one thread with the data in cache. bench/quotient.py
// compiles it, and gives it programs on stdin, each behind its length in 32 bits.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <vector>

#include "../../csrc/backend/cpu/engine.h"
#include "../../csrc/backend/cpu/native/assemble.h"
#include "../../csrc/backend/cpu/native/native.h"
#include "../../csrc/backend/cpu/native/runner.h"

using namespace nos;
using namespace nos::cpu;
using namespace nos::cpu::native;

namespace {

constexpr int kRounds = 401;
constexpr int64_t kRoundElements = 100'000;
constexpr int kBlock = 512;

// The elements that a program works on: one tensor per slot, in one piece of memory.
struct Data {
  Data(int slots, int64_t n) : stride((static_cast<size_t>(n) * 4 + 63) / 64 * 64 + 320) {
    memory.resize(stride * static_cast<size_t>(slots) + 64);
    char* first = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
    uint32_t bits = 1;
    for (int s = 0; s < slots; ++s) {
      auto* values = reinterpret_cast<float*>(first + stride * static_cast<size_t>(s));
      for (int64_t i = 0; i < n; ++i)
        values[i] = 0.01f + static_cast<float>((bits = bits * 1664525 + 1013904223) >> 8) * 0x1p-24f;
      tensor.data[static_cast<size_t>(s)] = values;
      tensor.dtype[static_cast<size_t>(s)] = DType::f32;
    }
    tensor.numel = n;
    tensor.slices = 1;
  }
  size_t stride;
  std::vector<char> memory;
  PlannedTensor tensor{};
};

double seconds(const NativeCode& code, const Data& data, const float* row, char* scratch) {
  const int64_t n = data.tensor.numel;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t done = 0; done < kRoundElements; done += n)
    run(code, data.tensor, {0, 0, 0, n}, row, DrawKey{1, 0, 3, 0, 0}, kBlock, scratch);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

void compare(const Program& program) {
  const Graph graph = make_graph(program);
  if (graph.divisors.empty()) return;
  Graph divided = graph;  // the scalar row stays as it is
  for (Node& n : divided.nodes) n.divisor = -1;
  std::array<DType, kMaxSlots> dtypes;
  dtypes.fill(DType::f32);
  const NativeCode with = load(assemble(graph, dtypes.data(), Target::avx512), graph.num_inputs);
  const NativeCode without = load(assemble(divided, dtypes.data(), Target::avx512), graph.num_inputs);

  const NativeProgram native(program);
  std::vector<double> hypers, scalars(static_cast<size_t>(program.num_scalars()));
  for (const Hyper& h : program.hypers()) hypers.push_back(h.has_default ? h.value : 0.1);
  program.eval_scalars(3, 10, hypers, scalars);
  std::vector<float> row(native.row_size() + kTableLanes);
  native.fill_row(scalars.data(), 1, row.data());
  std::vector<char> scratch(std::max(scratch_bytes(with), scratch_bytes(without)) + kLine);
  char* const aligned = scratch.data() + (kLine - reinterpret_cast<uintptr_t>(scratch.data()) % kLine);

  std::printf("%-28s", program.name().c_str());
  for (const int64_t n : {1000, 30'000}) {
    const Data data(graph.num_inputs, n);
    std::vector<double> gain;
    for (int round = 0; round < kRounds; ++round) {
      double a, b;
      if (round % 2) {
        a = seconds(with, data, row.data(), aligned);
        b = seconds(without, data, row.data(), aligned);
      } else {
        b = seconds(without, data, row.data(), aligned);
        a = seconds(with, data, row.data(), aligned);
      }
      gain.push_back(b / a);
    }
    std::printf("  %6ld elements: x%.3f", static_cast<long>(n), median(gain));
  }
  std::printf("\n");
}

}  // namespace

int main() {
  if (std::string(status()) != "avx512") {
    std::printf("the native tier is %s: only AVX-512 has another way to divide\n", status());
    return 0;
  }
  uint32_t size;
  while (std::fread(&size, sizeof size, 1, stdin) == 1) {
    std::vector<uint8_t> bytes(size);
    if (std::fread(bytes.data(), 1, size, stdin) != size) return 1;
    compare(Program::parse(bytes));
  }
}
