// Owns the storage conversions: bf16 and f16 to fp32 (exact) and back (round to nearest, ties to even, or stochastic),
// and the codes of quantized states.
//
// The formulas use integers and no branches, so flush-to-zero modes do not matter. Overflow goes to infinity, and
// underflow through the subnormals of the target. A NaN keeps its sign and the top bits of its payload and becomes
// quiet, as it does with F16C, AVX512-BF16 and on aarch64.
#pragma once
#include "portable.h"

namespace nos::math {

NOS_HD float bf16_to_f32(uint16_t h) { return bits_as<float>(static_cast<uint32_t>(h) << 16); }

NOS_HD uint16_t f32_to_bf16(float x) {
  const uint32_t u = bits_as<uint32_t>(x);
  const int32_t a = static_cast<int32_t>(u & 0x7fffffffu);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x40u;
  return static_cast<uint16_t>(a > 0x7f800000 ? quiet : rounded);
}

NOS_HD float f16_to_f32(uint16_t h) {
  const int32_t a = h & 0x7fff;  // exponent and mantissa
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t small = bits_as<uint32_t>(static_cast<float>(a) * 0x1p-24f);  // subnormal: a counts units of 2^-24
  const uint32_t normal = (static_cast<uint32_t>(a) << 13) + (112u << 23);     // exponent bias 15 -> 127
  const uint32_t special = normal + (112u << 23);                              // infinity, NaN: 31 -> 255
  uint32_t u = a < 0x0400 ? small : normal;
  u = a >= 0x7c00 ? special : u;
  u |= a > 0x7c00 ? 0x00400000u : 0u;  // quiet
  return bits_as<float>(u | sign);
}

NOS_HD uint16_t f32_to_f16(float x) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t m = u & 0x7fffffffu;
  const int32_t a = static_cast<int32_t>(m);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t normal = (m + 0xfffu + ((m >> 13) & 1u) - (112u << 23)) >> 13;
  // below 2^-14: adding 0.5 leaves the multiple of 2^-24, rounded by the addition itself, in the low bits
  const uint32_t small = bits_as<uint32_t>(bits_as<float>(m) + 0.5f) - 0x3f000000u;
  const uint32_t quiet = 0x7e00u | ((m >> 13) & 0x3ffu);
  uint32_t h = a < 0x38800000 ? small : normal;
  h = a >= 0x477ff000 ? 0x7c00u : h;  // 65520, the midpoint between the largest half and 2^16
  h = a > 0x7f800000 ? quiet : h;
  return static_cast<uint16_t>(h | sign);
}

// Stochastic rounding chooses one of the two neighbours of x, the upper one with the probability (x - lower) / (upper -
// lower), so that the mean of many results is x. `w` is 32 random bits. A value that the target can hold comes back
// exactly, the neighbour above the largest finite number is infinity, and infinities and NaN are converted as above.
NOS_HD uint16_t f32_to_bf16_stochastic(float x, uint32_t w) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t sum = u + (w >> 16);  // nothing carries in an infinity
  return static_cast<uint16_t>((x != x ? u | 0x400000u : sum) >> 16);
}

// The probability is exact from 2^-14 on. Below, where a half is subnormal, it is rounded down to a multiple of 2^-31.
NOS_HD uint16_t f32_to_f16_stochastic(float x, uint32_t w) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t m = u & 0x7fffffffu;
  const int32_t a = static_cast<int32_t>(m);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t normal = (m + (w >> 19) - (112u << 23)) >> 13;
  const float units = bits_as<float>(a < 0x38800000 ? m : 0u) * 0x1p24f;  // of 2^-24; less than 2^10
  const int32_t whole = static_cast<int32_t>(units);
  const int32_t chance = static_cast<int32_t>((units - static_cast<float>(whole)) * 0x1p31f);
  const uint32_t small = static_cast<uint32_t>(whole) + (static_cast<int32_t>(w >> 1) < chance ? 1u : 0u);
  uint32_t h = a < 0x38800000 ? small : normal;
  h = h > 0x7c00u ? 0x7c00u : h;
  return a >= 0x47800000 ? f32_to_f16(x) : static_cast<uint16_t>(h | sign);  // from 2^16 on: infinity, NaN
}

// Codes. A block of numbers has one scale, and a code c stands for c |c| scale: the codes are the square roots of the
// numbers, so that small ones keep some precision beside large ones. i8 has -127 .. 127. u8 is for numbers that are not
// negative and has 0 .. 255. What is not 0 has no code 0: rules divide by the root of a state, and ask for its sign.
inline constexpr int32_t kLargestI8 = 127, kLargestU8 = 255;

NOS_HD float from_code(int32_t code, float scale) {
  const float c = static_cast<float>(code);
  return c * __builtin_fabsf(c) * scale;  // the first product is exact
}

// What the largest number of a block is found by: its bits without the sign, but with that of a negative number in u8.
NOS_HD uint32_t size_bits(float x, bool is_signed) {
  return is_signed ? bits_as<uint32_t>(x) & 0x7fffffffu : bits_as<uint32_t>(x + 0.0f);
}

// The scale of a block: 0 if all of its numbers are 0, NaN if one is not finite. `largest` is the largest of the
// numbers by their bits without the sign. Those of a negative number in u8 are taken with the sign, so that it counts
// as one that is not finite. From 2^-126 on a scale has all of its bits, and so has its inverse.
NOS_HD float scale_of(uint32_t largest, int32_t largest_code) {
  const float spread = divide(bits_as<float>(largest), static_cast<float>(largest_code * largest_code));
  const float scale = spread < 0x1p-126f ? 0x1p-126f : spread;
  return largest == 0u ? 0.0f : largest >= 0x7f800000u ? bits_as<float>(0x7fc00000u) : scale;
}

// The code of a magnitude for the inverse of a scale that is neither 0 nor NaN. Of the two neighbours c and c + 1 it is
// the upper one from the part u of their distance on: for u = 0.5 the nearest one, and for a uniform u in [0, 1] one
// that is right on average. Below 1 it is always the upper one.
NOS_HD int32_t to_code(float magnitude, float inverse, float u, int32_t largest_code) {
  const float units = magnitude * inverse;  // of the scale: the square of the code
  const int32_t floor = static_cast<int32_t>(square_root(units));
  const float lower = static_cast<float>(floor);
  const float above = exact_product_plus(-lower, lower, units);
  const float part = lower < u ? lower : u;  // 0 for the code 0, else u
  const float between = part * exact_product_plus(2.0f, lower, 1.0f);
  const int32_t code = floor + (between < above ? 1 : 0);
  return code < largest_code ? code : largest_code;
}

}  // namespace nos::math
