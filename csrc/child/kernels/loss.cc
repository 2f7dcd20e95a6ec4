// Softmax cross-entropy.
#include "../../ops/math.h"
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {

Loss cross_entropy(const Image& logits, const int32_t* classes, int examples, bool gradient, float* probabilities) {
  const int n = logits.channels, lanes = logits.lanes;
  Loss loss{0, 0, 0};
  for (int p = 0; p < logits.width; ++p)
    for (int e = 0; e < examples; ++e) loss.counted += classes[static_cast<ptrdiff_t>(p) * lanes + e] >= 0;
  const float share = loss.counted ? static_cast<float>(1 / static_cast<double>(loss.counted)) : 0;
  for (int at = 0; at < logits.width * lanes; at += kLanes) {
    const int first = at % lanes;
    if (!gradient && first >= examples) continue;
    float highest[kLanes], total[kLanes], its[kLanes];
    int32_t best[kLanes];
    const ptrdiff_t place = static_cast<ptrdiff_t>(at / lanes) * n * lanes + first;
    const float* x = logits.data + place;
    float* p = probabilities + place;
    const int32_t* wanted = classes + at;  // only of lanes below `used`
    const int used = examples - first;
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
      const int32_t k = l < used ? wanted[l] : -1;
      its[l] = k >= 0 ? x[static_cast<ptrdiff_t>(k) * lanes + l] : 0;
    }
    float nats[kLanes];
    for (int l = 0; l < kLanes; ++l) nats[l] = math::log<float>(total[l]) + (highest[l] - its[l]);
    for (int l = 0; l < kLanes && l < used; ++l) {
      if (wanted[l] < 0) continue;
      loss.sum += static_cast<double>(nats[l]);
      loss.right += best[l] == wanted[l];
    }
    if (!gradient) continue;
    float weight[kLanes];
    for (int l = 0; l < kLanes; ++l) weight[l] = l < used && wanted[l] >= 0 ? share / total[l] : 0;
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < kLanes; ++l) p[static_cast<ptrdiff_t>(k) * lanes + l] *= weight[l];
    for (int l = 0; l < kLanes && l < used; ++l)
      if (wanted[l] >= 0) p[static_cast<ptrdiff_t>(wanted[l]) * lanes + l] -= share;
  }
  return loss;
}

}  // namespace nos::child::NOS_CHILD_ISA
