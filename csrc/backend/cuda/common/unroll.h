// Owns the words that stand before a loop and tell nvcc whether to unroll it. Host compilers choose for themselves.
#pragma once

#if defined(__CUDA_ARCH__)
#define NOS_UNROLL _Pragma("unroll")
#define NOS_NO_UNROLL _Pragma("unroll 1")
#define NOS_UNROLL_8 _Pragma("unroll 8")
#else
#define NOS_UNROLL
#define NOS_NO_UNROLL
#define NOS_UNROLL_8
#endif
