#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace nos::cpu {

const Kernels& kernels_baseline();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();

namespace {

std::vector<Isa> usable() {
  std::vector<Isa> out = {{"baseline", &kernels_baseline()}};
#ifdef NOS_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out.push_back({"avx2", &kernels_avx2()});
#endif
#ifdef NOS_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    out.push_back({"avx512", &kernels_avx512()});
#endif
  return out;
}

Isa choose() {
  const std::vector<Isa> list = usable();
  const char* wanted = std::getenv("NOS_ISA");
  if (!wanted || !*wanted) return list.back();
  std::string names;
  for (const Isa& i : list) {
    if (std::string(wanted) == i.name) return i;
    names += (names.empty() ? "" : ", ") + std::string(i.name);
  }
  throw std::invalid_argument("NOS_ISA is '" + std::string(wanted) + "'; this machine runs: " + names);
}

}  // namespace

const Isa& isa() {
  static const Isa chosen = choose();
  return chosen;
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const Isa& i : usable()) names.emplace_back(i.name);
  return names;
}

}  // namespace nos::cpu
