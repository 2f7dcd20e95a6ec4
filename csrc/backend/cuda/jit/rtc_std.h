// Owns the few names of the standard library that the shared headers use. NVRTC has no system headers.
#pragma once
#if defined(__CUDACC_RTC__)
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
using uintptr_t = unsigned long;
namespace std {
template <class A, class B>
inline constexpr bool is_same_v = false;
template <class A>
inline constexpr bool is_same_v<A, A> = true;
template <bool c, class A, class B>
struct conditional {
  using type = A;
};
template <class A, class B>
struct conditional<false, A, B> {
  using type = B;
};
template <bool c, class A, class B>
using conditional_t = typename conditional<c, A, B>::type;
template <class T>
struct numeric_limits;
template <>
struct numeric_limits<float> {
  static constexpr float infinity() { return __builtin_bit_cast(float, 0x7f800000u); }
  static constexpr float quiet_NaN() { return __builtin_bit_cast(float, 0x7fc00000u); }
};
}  // namespace std
// What g++ and nvcc offer as builtins, for operations that are one instruction.
#define __builtin_fabs ::fabs
#define __builtin_fabsf ::fabsf
#define __builtin_floor ::floor
#define __builtin_floorf ::floorf
#define __builtin_truncf ::truncf
#define __builtin_copysign ::copysign
#define __builtin_copysignf ::copysignf
#endif
