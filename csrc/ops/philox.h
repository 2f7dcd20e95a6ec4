// Owns the random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3. SC
// 2011), how its counter and key are filled, and the uniform and Gaussian draws made of its words.
//
// A draw is a pure function of (seed, step, tensor, site, element), so it does not depend on back-end, thread count or
// chunking. One call makes the four words of four neighbouring elements (q = element >> 2, lane = element & 3):
//
//              31         20 19          0
//   c0        |          q, bits 0..31       |
//   c1        |   site    |  q, bits 32..51  |   site: which draw of the program, 0..4094
//   c2        |         tensor index         |
//   c3        |     step, its low 32 bits    |
//   k0, k1    |   seed, low and high half    |
//
// Stochastic rounding of output k of a rule (0: the parameter, 1 ..: the states) draws at site 4095 once for a block of
// 512 elements, with the number of the block in the place of q and k in bits 16..19 of c1, which no tensor's q reaches.
// A multiplication makes a word of it for each element: rounding needs a word for every element of every result, and
// Philox would take several times as long as the step.
#pragma once
#include "math_f32.h"
#include "portable.h"

namespace nos::philox {

struct Words {
  uint32_t w[4];
};

NOS_HD uint32_t mul_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32); }

NOS_HD Words philox4x32_10(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  constexpr uint32_t kM0 = 0xd2511f53u, kM1 = 0xcd9e8d57u;  // multipliers
  constexpr uint32_t kW0 = 0x9e3779b9u, kW1 = 0xbb67ae85u;  // key increments
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint32_t h0 = mul_high(kM0, c0), l0 = kM0 * c0;
    const uint32_t h1 = mul_high(kM1, c2), l1 = kM1 * c2;
    c0 = h1 ^ c1 ^ k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ k1;
    c3 = l0;
    k0 += kW0;
    k1 += kW1;
  }
  return {{c0, c1, c2, c3}};
}

// The words of elements 4 q .. 4 q + 3.
NOS_HD Words element_words(uint64_t seed, uint32_t step, uint32_t tensor, uint32_t site, uint64_t q) {
  const uint32_t q_low = static_cast<uint32_t>(q);
  const uint32_t q_high = static_cast<uint32_t>(q >> 32) & 0xfffffu;
  return philox4x32_10(q_low, q_high | site << 20, tensor, step, static_cast<uint32_t>(seed),
                       static_cast<uint32_t>(seed >> 32));
}

inline constexpr uint32_t kRoundingSite = 4095;

inline constexpr uint32_t kRoundingBlock = 512;  // elements

struct RoundingKey {
  uint32_t factor, start;  // the factor is odd
};

// The key of the block in which an element lies, for rounding output number `output`.
NOS_HD RoundingKey rounding_key(uint64_t seed, uint32_t step, uint32_t tensor, uint32_t output, uint64_t element) {
  const uint64_t q = element / kRoundingBlock | static_cast<uint64_t>(output) << 48;
  const Words w = element_words(seed, step, tensor, kRoundingSite, q);
  return {w.w[0] | 1u, w.w[1]};
}

// What stands for element number `lane` of a block: the numbers 0 .. 511, scattered over 32 bits.
NOS_HD constexpr uint32_t scattered_lane(uint32_t lane) {
  const uint32_t h = lane * 0x9e3779b9u;
  return h ^ h >> 15;
}

// The word of the element of a block that `scattered` stands for. Its upper half is what matters. Over all keys, those
// of any two words of a block are as good as independent: a random odd factor turns the difference of their lanes into
// any number with as many zeros at its end, of which there are few.
NOS_HD uint32_t word_of_scattered(RoundingKey key, uint32_t scattered) { return scattered * key.factor + key.start; }

// The word of element number `lane` of the block.
NOS_HD uint32_t rounding_word(RoundingKey key, uint32_t lane) { return word_of_scattered(key, scattered_lane(lane)); }

// The word as a number u, uniform in [0, 1]: 2^-32 times the word as a signed integer, rounded to fp32, plus a half.
NOS_HD float rounding_part(uint32_t word) {
  return exact_product_plus(static_cast<float>(static_cast<int32_t>(word)), 0x1p-32f, 0.5f);
}

// A uniform draw in [0, 1), a multiple of 2^-24.
NOS_HD float uniform(uint32_t w) { return static_cast<float>(static_cast<int32_t>(w >> 8)) * 0x1p-24f; }

NOS_HD void uniform4(const Words& w, float out[4]) {
  for (int lane = 0; lane < 4; ++lane) out[lane] = uniform(w.w[lane]);
}

// Sine and cosine of the angle 2 pi w / 2^32. Integer arithmetic cuts the turn exactly into quadrants centred on 0,
// pi/2, pi and 3 pi/2. What remains, |x| <= pi/4, is rounded to fp32 twice: when it is converted and when it is scaled.
NOS_HD void sincos_turn(uint32_t w, float& sine, float& cosine) {
  const uint32_t quadrant = (w + 0x20000000u) >> 30;
  const float x = static_cast<float>(static_cast<int32_t>(w - (quadrant << 30))) * 0x1.921fb6p-30f;  // 2 pi / 2^32
  const float z = x * x;
  float s = -0x1.9943d0p-13f;
  s = fused(s, z, 0x1.11073ap-7f);
  s = fused(s, z, -0x1.555546p-3f);
  s = fused(s * z, x, x);
  float c = 0x1.99eb82p-16f;
  c = fused(c, z, -0x1.6c0c34p-10f);
  c = fused(c, z, 0x1.55554ap-5f);
  c = fused(c, z, -0.5f);
  c = fused(c, z, 1.0f);
  const bool swap = (quadrant & 1u) != 0;
  const float a = swap ? c : s;
  const float b = swap ? s : c;
  const uint32_t sign_a = (quadrant & 2u) << 30;         // sine: negative in quadrants 2, 3
  const uint32_t sign_b = ((quadrant + 1u) & 2u) << 30;  // cosine: negative in quadrants 1, 2
  sine = bits_as<float>(bits_as<uint32_t>(a) ^ sign_a);
  cosine = bits_as<float>(bits_as<uint32_t>(b) ^ sign_b);
}

// Box-Muller makes two independent N(0, 1) draws of two words. |result| <= sqrt(66 ln 2) = 6.77.
NOS_HD void normal2(uint32_t w0, uint32_t w1, float& even, float& odd) {
  const float u = fused(static_cast<float>(w0), 0x1p-32f, 0x1p-33f);  // in [2^-33, 1]
  const float r = square_root(-2.0f * math::f32::log(u));
  float sine, cosine;
  sincos_turn(w1, sine, cosine);
  even = r * cosine;
  odd = r * sine;
}

NOS_HD void normal4(const Words& w, float out[4]) {
  normal2(w.w[0], w.w[1], out[0], out[1]);
  normal2(w.w[2], w.w[3], out[2], out[3]);
}

}  // namespace nos::philox
