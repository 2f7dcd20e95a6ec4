// Declares what kernels of weight gradients share.
#pragma once
#include "../image.h"

namespace nos::child::NOS_CHILD_ISA {

// Adds to products[filter][channel] the sums over all lanes of gradient[filter] * in[channel], of one pixel.
void add_products(const Image& in, const Image& gradient, float* products);

}  // namespace nos::child::NOS_CHILD_ISA
