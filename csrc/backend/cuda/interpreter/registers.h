// Owns what keeps a device compiler from moving values of the interpreter's loop to other places, where they would hold
// registers for longer. On the host nothing is held back.
#pragma once
#include "../../../ops/portable.h"

namespace nos::cuda {

// d = s, as an instruction that the compiler may not move. Without it the copies of one case become phi moves before
// the branch. Every instruction then pays for them, and registers spill.
#if defined(__CUDA_ARCH__)
NOS_HD void move(float& d, float s) { asm volatile("mov.b32 %0, %1;" : "=f"(d) : "f"(s)); }
NOS_HD void move(double& d, double s) { asm volatile("mov.b64 %0, %1;" : "=d"(d) : "d"(s)); }
NOS_HD void opaque(int& x) { asm volatile("" : "+r"(x)); }
NOS_HD void opaque(uint32_t& x) { asm volatile("" : "+r"(x)); }
#else
template <class T>
NOS_HD void move(T& d, T s) {
  d = s;
}
NOS_HD void opaque(int&) {}
NOS_HD void opaque(uint32_t&) {}
#endif

}  // namespace nos::cuda
