#include "peak.h"

#include <algorithm>
#include <chrono>
#include <string_view>

#include "layer.h"

namespace nos::child {

using Loop = double(long rounds, float factor, float addend, float* sink);
#ifdef NOS_HAVE_AVX2
namespace avx2 {
Loop multiply_and_add;
}
#endif
#ifdef NOS_HAVE_AVX512
namespace avx512 {
Loop multiply_and_add;
}
#endif

namespace {

// That of the instruction set whose kernels are in use.
Loop* loop_in_use() {
  [[maybe_unused]] const std::string_view name = kernels() ? kernels()->name : "";
#ifdef NOS_HAVE_AVX512
  if (name == "avx512") return avx512::multiply_and_add;
#endif
#ifdef NOS_HAVE_AVX2
  if (name == "avx2") return avx2::multiply_and_add;
#endif
  return nullptr;
}

}  // namespace

double peak_gflops(double seconds) {
  using Clock = std::chrono::steady_clock;
  Loop* const loop = loop_in_use();
  if (!loop) return 0;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double best = 0;
  volatile float factor = 0.999f, addend = 0.001f;  // unknown to the compiler
  const Clock::time_point start = Clock::now();
  do {
    float sink;
    const Clock::time_point round = Clock::now();
    const double operations = loop(200'000, factor, addend, &sink);
    const double took = since(round);
    addend = sink < 1e9f ? 0.001f : 0.0f;
    best = std::max(best, operations / took * 1e-9);
  } while (since(start) < seconds);
  return best;
}

}  // namespace nos::child
