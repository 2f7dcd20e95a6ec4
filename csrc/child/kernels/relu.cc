// The positive part. Its gradient passes where the result is NaN, as in torch, so that a NaN is not lost on the way
// back.
#include "../lanes.h"
#include "kernels.h"

namespace nos::child::NOS_CHILD_ISA {

void relu(const float* in, float* out, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kWidth) store(out + i, max(zero(), load(in + i)));
}
void relu_input(const float* out, const float* gradient, float* to, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kWidth) store(to + i, keep(positive_or_nan(load(out + i)), load(gradient + i)));
}

}  // namespace nos::child::NOS_CHILD_ISA
