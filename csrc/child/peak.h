// Owns the measure that the speed of a child's kernels is set beside: what one core can do at most.
#pragma once

namespace nos::child {

// Floating-point operations per second, in 1e9, of one thread that only makes independent fused multiply-adds, each of
// which counts two. The best of several short rounds within about `seconds`. 0 where this machine has no kernels.
double peak_gflops(double seconds);

}  // namespace nos::child
