// Gated recurrent units at one position.
#include "../../ops/math.h"
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {
namespace {

NOS_CHILD_INLINE float sigmoid(float x) { return 1.0f / (1.0f + math::exp<float>(-x)); }

}  // namespace

// In short loops over a logical vector, which the compiler turns into vectors.
void gate(float* gates, const float* before, float* state, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes) {
    float *n = gates + i, *r = n + count, *z = r + count, *q = z + count;
    alignas(64) float open[kLanes], keep_old[kLanes], fresh[kLanes];
    for (int l = 0; l < kLanes; ++l) open[l] = sigmoid(r[l]);
    for (int l = 0; l < kLanes; ++l) keep_old[l] = sigmoid(z[l]);
    for (int l = 0; l < kLanes; ++l) fresh[l] = fused(open[l], q[l], n[l]);
    for (int l = 0; l < kLanes; ++l) fresh[l] = math::tanh<float>(fresh[l]);
    for (int l = 0; l < kLanes; l += kWidth) {
      const M old = load(keep_old + l), of_n = load(fresh + l);
      store(r + l, load(open + l));
      store(z + l, old);
      store(n + l, of_n);
      store(state + i + l, fma(old, load(before + i + l) - of_n, of_n));
    }
  }
}

void gate_input(float* gates, const float* before, const float* gradient, float* carry, ptrdiff_t count) {
  float *n = gates, *r = n + count, *z = r + count, *q = z + count;
  const M one = splat(1.0f);
  for (ptrdiff_t i = 0; i < count; i += kWidth) {
    const M fresh = load(n + i), open = load(r + i), keep_old = load(z + i);
    const M g = load(gradient + i) + load(carry + i);
    const M of_n = g * (one - keep_old) * (one - fresh * fresh);
    store(z + i, g * (load(before + i) - fresh) * keep_old * (one - keep_old));
    store(r + i, of_n * load(q + i) * open * (one - open));
    store(n + i, of_n);
    store(q + i, of_n * open);
    store(carry + i, g * keep_old);
  }
}

}  // namespace nos::child::NOS_CHILD_ISA
