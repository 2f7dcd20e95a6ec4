// A program on the CPU back-end, for test_new_op.py: argv[1] is the file of its bytes, argv[2] that of its gradient in
// float32; p and lr are 1. Writes the new p. The native tier is on or off by $NOS_NATIVE, and stderr says which.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "csrc/backend/cpu/engine.h"
#include "csrc/program/program.h"

static std::vector<char> read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

int main(int, char** argv) {
  const std::vector<char> bytes = read(argv[1]);
  std::vector<char> g = read(argv[2]);
  const size_t n = g.size() / sizeof(float);
  std::vector<float> p(n, 1.0f);
  const nos::Program program = nos::Program::parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  const int64_t shape[] = {static_cast<int64_t>(n)}, strides[] = {1};
  nos::TensorList lists[] = {{"params", {{}}}, {"grads", {{}}}};
  for (nos::TensorList& list : lists) {
    nos::TensorRef& t = list.tensors[0];
    t.shape = shape, t.strides = strides, t.numel = shape[0], t.ndim = 1;
  }
  lists[0].tensors[0].data = p.data();
  lists[1].tensors[0].data = g.data();
  const double hypers[] = {1.0};
  std::vector<double> slots(static_cast<size_t>(program.num_scalars()));
  program.eval_scalars(1, 1, hypers, slots);
  const nos::Program* programs[] = {&program};
  const double* rows[] = {slots.data()};
  const size_t sizes[] = {slots.size()};
  const uint64_t seeds[] = {5};
  nos::cpu::prepare(nos::make_plan(lists, 0), programs)->run({rows, sizes, 1, seeds, 1, 1.0}, programs);
  std::fprintf(stderr, "%s", nos::cpu::native::status());
  return std::fwrite(p.data(), sizeof(float), n, stdout) == n ? 0 : 1;
}
