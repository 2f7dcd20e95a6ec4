// A loop of independent fused multiply-adds for one instruction set, as kernels.cc is compiled.
#include "lanes.h"

namespace nos::child::NOS_CHILD_ISA {

// Chains that do not wait for each other: more than latency times units of any processor, and few enough for registers.
inline constexpr int kChains = 12;

// Makes `rounds` fused multiply-adds in each chain, and returns how many floating-point operations that was. `sink`
// gets a number that depends on all of them, so that none can be left out.
double multiply_and_add(long rounds, float factor, float addend, float* sink) {
  const M a = splat(factor), b = splat(addend);
  M chains[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) chains[c] = splat(static_cast<float>(c));
  for (long r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) chains[c] = fma(chains[c], a, b);
  M all = chains[0];
#pragma GCC unroll 12
  for (int c = 1; c < kChains; ++c) all = max(all, chains[c]);
  const M parts[kParts] = {all};
  *sink = sum(parts);
  return 2.0 * static_cast<double>(rounds) * kChains * kWidth;
}

}  // namespace nos::child::NOS_CHILD_ISA
