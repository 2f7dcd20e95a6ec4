// libFuzzer target: any bytes either are refused by Program::parse or give a program that the CPU back-end runs without
// touching memory outside its tensors (ASan, UBSan). `make fuzz` builds and runs it from the corpus of library rules.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../../csrc/backend/cpu/engine.h"
#include "../../csrc/backend/cpu/interpreter/lower.h"
#include "../../csrc/backend/cpu/reducing.h"
#include "../../csrc/program/program.h"

namespace {

std::atomic<uint64_t> g_total{0}, g_valid{0};

void print_totals() {
  std::fprintf(stderr, "fuzz_program: %llu inputs, %llu valid programs run, 0 crashes\n",
               static_cast<unsigned long long>(g_total), static_cast<unsigned long long>(g_valid));
}

// Runs one program on tensors whose memory ends exactly where the allocation ends.
void run(const nos::Program& program, nos::DType dtype, int64_t numel) {
  std::vector<std::vector<char>> memory;
  nos::Plan plan;
  plan.num_slots = nos::bytecode::kFirstState + program.num_states();
  nos::PlannedTensor tensor{};
  tensor.numel = numel;
  tensor.slices = 1;
  for (int s = 0; s < plan.num_slots; ++s) {
    const bool number = s >= nos::bytecode::kFirstState && program.is_per_tensor(s - nos::bytecode::kFirstState);
    const int64_t elements = number ? 1 : numel;
    memory.emplace_back(static_cast<size_t>(elements * nos::size_of(dtype)), static_cast<char>(17 * s + 1));
    tensor.data[static_cast<size_t>(s)] = memory.back().data();
    tensor.dtype[static_cast<size_t>(s)] = dtype;
  }
  plan.tensors.push_back(tensor);
  std::vector<double> hypers;
  for (const nos::Hyper& h : program.hypers()) hypers.push_back(h.has_default ? h.value : 0.1);
  std::vector<double> slots(static_cast<size_t>(program.num_scalars()));
  program.eval_scalars(3, 10, hypers, slots);
  const nos::Program* programs[] = {&program};
  const double* rows[] = {slots.data()};
  const size_t sizes[] = {slots.size()};
  const uint64_t seeds[] = {7};
  const nos::StepArgs args{rows, sizes, 1, seeds, 3, -0.5};
  if (program.has_tensor_scalars())
    nos::cpu::prepare_reducing(std::move(plan), programs)->run(args, programs, {});
  else
    nos::cpu::prepare(std::move(plan), programs)->run(args, programs);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  std::atexit(print_totals);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ++g_total;
  try {
    const nos::Program program = nos::Program::parse({data, size});
    ++g_valid;
    if (program.disassemble().empty() || program.identity().empty()) std::abort();
    for (const nos::DType dtype : {nos::DType::f32, nos::DType::f64, nos::DType::bf16, nos::DType::f16})
      run(program, dtype, 1 + static_cast<int64_t>(size % 37));
  } catch (const nos::BytecodeError&) {
  }
  return 0;
}

// Half of the mutations are libFuzzer's own. The other half change bytes in place and are tried again until the
// verifier accepts one, so that the stages after it see many different programs too.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  if (seed % 2 || size < 32) return LLVMFuzzerMutate(data, size, max_size);
  std::minstd_rand random(seed);
  const std::vector<uint8_t> original(data, data + size);
  for (int attempt = 0; attempt < 32; ++attempt) {
    std::copy(original.begin(), original.end(), data);
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      uint8_t& byte = data[random() % size];
      byte = static_cast<uint8_t>(random() % 2 ? byte + 1 - 2 * (random() % 2) : random() % 64);
    }
    try {
      nos::Program::parse({data, size});
      return size;
    } catch (const nos::BytecodeError&) {
    }
  }
  return size;
}
