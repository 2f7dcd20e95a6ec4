// Owns the fp32 functions exp, log, tanh, pow and rsqrt. One branch-free source serves host vectors and the device, so
// that every back-end returns the same bits (NaN payloads aside).
//
// The code is written for an auto-vectoriser. It has selects instead of branches and one select per statement (nested
// ternaries stop GCC 12). Integers have 32 bits where there is a choice, no 64-bit integer is shifted arithmetically
// (AVX2 cannot), and no float is converted to an integer that may not hold it (x86, aarch64 and CUDA give different
// results). Every fused multiply-add is explicit. The coefficients are our own minimax fits (Remez in 50 digits, then
// rounded). The bounds are proven over all inputs: docs/numerics.md.
#pragma once
#include <limits>

#include "portable.h"

namespace nos::math::f32 {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Adding 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer (ties to even) and leaves it in the low bits of the sum.
// If the exponent bias is added too, shifting those bits left by 23 gives 2^n without another operation.
inline constexpr float kRound = 12582912.0f;
inline constexpr float kLog2e = 1.44269504f;

// x - n ln2, with ln2 split so that n * hi is exact for |n| < 2^10
NOS_HD float reduce_ln2(float x, float n) { return fused(n, -0x1.0bfbe8p-15f, fused(n, -0x1.62ep-1f, x)); }

// e^r for |r| <= 0.3466, in [0.707, 1.415]
NOS_HD float exp_reduced(float r) {
  float q = 0x1.9f06f4p-13f;
  q = fused(q, r, 0x1.6d8e6ep-10f);
  q = fused(q, r, 0x1.111274p-7f);
  q = fused(q, r, 0x1.55548cp-5f);
  q = fused(q, r, 0x1.555554p-3f);
  q = fused(q, r, 0.5f);
  return fused(r * r, q, r) + 1.0f;
}

NOS_HD float exp(float x) {
  float c = x < -104.0f ? -104.0f : x;  // e^-104 < 2^-150: rounds to 0. A NaN passes both clamps.
  c = c > 89.0f ? 89.0f : c;            // e^89 > 2^128: infinite
  // 2^n = 2^h 2^(n - h) with h near n / 2, since n goes from -150 to 128; the first product is exact, so a subnormal
  // result is rounded once.
  const float t = fused(c, kLog2e, kRound + 254.0f);
  const float th = fused(c, 0.5f * kLog2e, kRound + 127.0f);
  const float p = exp_reduced(reduce_ln2(c, t - (kRound + 254.0f)));
  const uint32_t h = bits_as<uint32_t>(th);
  const float s1 = bits_as<float>(h << 23);
  const float s2 = bits_as<float>((bits_as<uint32_t>(t) - h) << 23);
  return p * s1 * s2;
}

// 1 / sqrt(x) is rounded twice and may be off by 1.5 ulp. One Newton step in fused arithmetic leaves little more than
// the last rounding: with x y = h + l exactly, the residual 1 - x y^2 = (1 - h y) - l y is almost exact.
NOS_HD float rsqrt(float x) {
  const float y = divide(1.0f, square_root(x));
  const float h = x * y;
  const float l = fused(x, y, -h);
  const float residual = fused(-l, y, fused(-h, y, 1.0f));
  const float better = fused(0.5f * y, residual, y);
  return better == better ? better : y;  // for 0, infinity and NaN the step is NaN and y is right
}

NOS_HD float log(float x) {
  const bool tiny = x < 0x1p-126f;  // subnormal (or not positive: replaced below)
  const float scaled = tiny ? x * 0x1p23f : x;
  const float bias = tiny ? -23.0f : 0.0f;
  const uint32_t ix = bits_as<uint32_t>(scaled);
  const int32_t e = static_cast<int32_t>(ix - 0x3f2aaaabu) >> 23;  // x = m 2^e with m in [2/3, 4/3)
  const float f = bits_as<float>(ix - (static_cast<uint32_t>(e) << 23)) - 1.0f;
  const float n = static_cast<float>(e) + bias;
  // log(1 + f) = f - f^2 / 2 + f^3 P(f), P of degree 7 in two interleaved halves
  const float s = f * f;
  float p = -0x1.0805c6p-3f;
  float q = 0x1.1e6730p-3f;
  p = fused(p, s, -0x1.f31124p-4f);
  q = fused(q, s, 0x1.1ed6fcp-3f);
  p = fused(p, s, -0x1.559dccp-3f);
  q = fused(q, s, 0x1.99d02ap-3f);
  p = fused(p, s, -0x1.fffef0p-3f);
  q = fused(q, s, 0x1.555506p-2f);
  p = fused(p, f, q);
  p = fused(p, f, -0.5f);
  p = fused(p, s, f);
  float y = fused(n, 0x1.62e430p-1f, p);
  y = x < kInf ? y : x;  // +inf and NaN
  y = x < 0.0f ? kNaN : y;
  y = x == 0.0f ? -kInf : y;
  return y;
}

NOS_HD float tanh(float x) {
  const float a = __builtin_fabsf(x);
  // |x| < 0.625: x + x^3 P(x^2)
  const float z = x * x;
  float p = -0x1.75e22ep-8f;
  p = fused(p, z, 0x1.5226b8p-6f);
  p = fused(p, z, -0x1.b83c60p-5f);
  p = fused(p, z, 0x1.110728p-3f);
  p = fused(p, z, -0x1.555532p-2f);
  const float small = fused(p * z, a, a);
  // else 1 - 2 / (e^(2a) + 1), which is 1 from a = 9.02 on. 2a <= 18.2, so 2^n needs no second factor.
  const float c = a > 9.1f ? 9.1f : a;
  const float t = fused(c, 2.0f * kLog2e, kRound + 127.0f);
  const float e = exp_reduced(reduce_ln2(c + c, t - (kRound + 127.0f))) * bits_as<float>(bits_as<uint32_t>(t) << 23);
  const float big = 1.0f - divide(2.0f, e + 1.0f);
  const float y = a < 0.625f ? small : big;
  return __builtin_copysignf(y, x);
}

// Computes 2^(y log2|x|) in double and rounds it to fp32 once. Then come the sign and the special cases of C's pow.
NOS_HD float pow(float x, float y) {
  const float a = __builtin_fabsf(x);
  const bool tiny = a < 0x1p-126f;
  const float scaled = tiny ? a * 0x1p23f : a;
  const float bias = tiny ? -23.0f : 0.0f;
  const uint32_t ix = bits_as<uint32_t>(scaled);
  const int32_t e = static_cast<int32_t>(ix - 0x3f3504f3u) >> 23;  // |x| = m 2^e with m in [sqrt(1/2), sqrt(2))
  const float m = bits_as<float>(ix - (static_cast<uint32_t>(e) << 23));
  float n = static_cast<float>(e) + bias;
  n = a == 0.0f ? -kInf : n;  // log2 is -inf
  n = a < kInf ? n : a;       // log2 is +inf, or NaN
  // log2(m) = s Q(s^2), s = (m - 1) / (m + 1); relative error of Q 2^-37.8
  const double dm = static_cast<double>(m);
  const double s = (dm - 1.0) / (dm + 1.0);
  const double z = s * s;
  double q = 0x1.5ce7dba479f4ap-2;
  q = fused(q, z, 0x1.a58d8f0add03ep-2);
  q = fused(q, z, 0x1.27777fdbc7e68p-1);
  q = fused(q, z, 0x1.ec709d12dfbb7p-1);
  q = fused(q, z, 0x1.71547652bede6p+1);
  const double l = fused(s, q, static_cast<double>(n));
  double w = static_cast<double>(y) * l;
  w = w < -1000.0 ? -1000.0 : w;  // beyond: 0 or infinity in fp32 anyway
  w = w > 1000.0 ? 1000.0 : w;
  // 2^w = 2^i 2^r. Adding 1.5 * 2^52 + 1023 rounds w to an integer and leaves i + 1023, the exponent field, in the low
  // bits. For a NaN that factor is garbage, and garbage times NaN is NaN.
  const double t = w + (0x1.8p52 + 1023.0);
  const double r = w - (t - (0x1.8p52 + 1023.0));
  double u = 0x1.fde65be218afcp-17;
  u = fused(u, r, 0x1.445c8554d3b7cp-13);
  u = fused(u, r, 0x1.5d8a85c1e7876p-10);
  u = fused(u, r, 0x1.3b29f39b9cc0cp-7);
  u = fused(u, r, 0x1.c6b08ac07f7a9p-5);
  u = fused(u, r, 0x1.ebfbe07789175p-3);
  u = fused(u, r, 0x1.62e42ff0e1b73p-1);
  u = fused(u, r, 1.0);
  float v = static_cast<float>(u * bits_as<double>(bits_as<uint64_t>(t) << 52));
  // If y is an odd integer the result takes the sign of x; if y is not an integer, x < 0 gives NaN.
  const float half = 0.5f * y;
  const bool integer = __builtin_truncf(y) == y;
  const bool odd = integer & (__builtin_truncf(half) != half);
  const uint32_t sign = odd ? bits_as<uint32_t>(x) & 0x80000000u : 0u;
  v = a == 1.0f ? 1.0f : v;  // pow(-1, +-inf), which counts as even
  v = bits_as<float>(bits_as<uint32_t>(v) | sign);
  const bool invalid = (x < 0.0f) & (a < kInf) & !integer;  // a NaN y is no integer
  v = invalid ? kNaN : v;
  v = (y == 0.0f) | (x == 1.0f) ? 1.0f : v;
  return v;
}

}  // namespace nos::math::f32
