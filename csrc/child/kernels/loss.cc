// Softmax cross-entropy.
#include "../../ops/math.h"
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {

Loss cross_entropy(const Image& logits, const int32_t* classes, int examples, bool gradient, float* probabilities) {
  const int n = logits.channels, lanes = logits.lanes;
  Loss loss{0, 0, 0};
  for (int e = 0; e < examples; ++e) loss.counted += classes[e] >= 0;
  const float share = loss.counted ? static_cast<float>(1 / static_cast<double>(loss.counted)) : 0;
  for (int first = 0; first < (gradient ? lanes : examples); first += kLanes) {
    float highest[kLanes], total[kLanes], its[kLanes];
    int32_t best[kLanes];
    const float* x = logits.data + first;
    float* p = probabilities + first;
    for (int l = 0; l < kLanes; ++l) highest[l] = x[l], best[l] = 0, total[l] = 0;
    for (int k = 1; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) {
        const float a = x[static_cast<ptrdiff_t>(k) * lanes + l];
        const bool more = a > highest[l];
        best[l] = more ? k : best[l];
        highest[l] = more ? a : highest[l];
      }
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) {
        const ptrdiff_t i = static_cast<ptrdiff_t>(k) * lanes + l;
        p[i] = math::exp<float>(x[i] - highest[l]);
        total[l] += p[i];
      }
    for (int l = 0; l < kLanes; ++l) {
      const int e = first + l;
      const int32_t wanted = e < examples ? classes[e] : -1;
      its[l] = wanted >= 0 ? x[static_cast<ptrdiff_t>(wanted) * lanes + l] : 0;
    }
    float nats[kLanes];
    for (int l = 0; l < kLanes; ++l) nats[l] = math::log<float>(total[l]) + (highest[l] - its[l]);
    for (int l = 0; l < kLanes && first + l < examples; ++l) {
      if (classes[first + l] < 0) continue;
      loss.sum += static_cast<double>(nats[l]);
      loss.right += best[l] == classes[first + l];
    }
    if (!gradient) continue;
    float weight[kLanes];
    for (int l = 0; l < kLanes; ++l) weight[l] = first + l < examples && classes[first + l] >= 0 ? share / total[l] : 0;
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) p[static_cast<ptrdiff_t>(k) * lanes + l] *= weight[l];
    for (int l = 0; l < kLanes && first + l < examples; ++l)
      if (classes[first + l] >= 0) p[static_cast<ptrdiff_t>(classes[first + l]) * lanes + l] -= share;
  }
  return loss;
}

}  // namespace nos::child::NOS_CHILD_ISA
