// Owns the arithmetic of a child's kernels: sixteen examples of the batch lie side by side, one in each lane. A logical
// vector of 16 lanes is one machine vector on AVX-512, two on AVX2 and four on NEON. Everything that mixes lanes is in
// here, with one order for all of them, so a child's bits do not depend on the machine. Compiled once per instruction
// set.
#pragma once
#include "image.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace nos::child::NOS_CHILD_ISA {

#if defined(__AVX512F__)
using M = __m512;
inline constexpr int kWidth = 16;
inline constexpr int kTileFilters = 8, kTileVectors = 3;  // 24 accumulators, 3 inputs and a weight in 32 registers
NOS_CHILD_INLINE M load(const float* p) { return _mm512_load_ps(p); }
NOS_CHILD_INLINE void store(float* p, M a) { _mm512_store_ps(p, a); }
NOS_CHILD_INLINE M splat(float x) { return _mm512_set1_ps(x); }
NOS_CHILD_INLINE M zero() { return _mm512_setzero_ps(); }
NOS_CHILD_INLINE M fma(M a, M b, M c) { return _mm512_fmadd_ps(a, b, c); }
NOS_CHILD_INLINE M max(M a, M b) { return _mm512_max_ps(a, b); }
NOS_CHILD_INLINE M zip_low(M a, M b) {  // the lower halves as a0 b0 a1 b1 ...; zip_high takes the upper ones
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
NOS_CHILD_INLINE M zip_high(M a, M b) {
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
using Mask = __mmask16;
NOS_CHILD_INLINE Mask equal(M a, M b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
NOS_CHILD_INLINE Mask unordered(M a, M b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }  // one is NaN
NOS_CHILD_INLINE Mask positive_or_nan(M a) { return _mm512_cmp_ps_mask(a, zero(), _CMP_NLE_UQ); }
NOS_CHILD_INLINE M keep(Mask m, M a) { return _mm512_maskz_mov_ps(m, a); }
NOS_CHILD_INLINE M select(Mask m, M a, M b) { return _mm512_mask_mov_ps(b, m, a); }
// The sum over the lanes: lane i + 8 is added to lane i, then lane i + 4, then i + 2, then i + 1.
NOS_CHILD_INLINE float sum(const M* a) {
  __m256 v =
      _mm256_add_ps(_mm512_castps512_ps256(a[0]), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a[0]), 1)));
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  return _mm_cvtss_f32(_mm_add_ss(w, _mm_movehdup_ps(w)));
}
// Returns the sums of sixteen vectors: lane n has that over the lanes of vector n, added up in the order of sum().
NOS_CHILD_INLINE M sums_of(const M (*a)[1]) {
  M octets[8], quads[4], pairs[2];
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {  // vectors n and n + 4 meet, so that lane n ends with the sum of vector n
    const M x = a[k / 4 * 8 + k % 4][0], y = a[k / 4 * 8 + k % 4 + 4][0];
    octets[k] = _mm512_shuffle_f32x4(x, y, 0x44) + _mm512_shuffle_f32x4(x, y, 0xee);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k)
    quads[k] =
        _mm512_shuffle_f32x4(octets[k], octets[k + 4], 0x88) + _mm512_shuffle_f32x4(octets[k], octets[k + 4], 0xdd);
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k)
    pairs[k] = _mm512_shuffle_ps(quads[2 * k], quads[2 * k + 1], 0x44) +
               _mm512_shuffle_ps(quads[2 * k], quads[2 * k + 1], 0xee);
  return _mm512_shuffle_ps(pairs[0], pairs[1], 0x88) + _mm512_shuffle_ps(pairs[0], pairs[1], 0xdd);
}
#elif defined(__AVX2__)
using M = __m256;
inline constexpr int kWidth = 8;
inline constexpr int kTileFilters = 4, kTileVectors = 3;  // 12 accumulators, 3 inputs and a weight in 16 registers
NOS_CHILD_INLINE M load(const float* p) { return _mm256_load_ps(p); }
NOS_CHILD_INLINE void store(float* p, M a) { _mm256_store_ps(p, a); }
NOS_CHILD_INLINE M splat(float x) { return _mm256_set1_ps(x); }
NOS_CHILD_INLINE M zero() { return _mm256_setzero_ps(); }
NOS_CHILD_INLINE M fma(M a, M b, M c) { return _mm256_fmadd_ps(a, b, c); }
NOS_CHILD_INLINE M max(M a, M b) { return _mm256_max_ps(a, b); }
NOS_CHILD_INLINE M zip_low(M a, M b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
NOS_CHILD_INLINE M zip_high(M a, M b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
using Mask = __m256;
NOS_CHILD_INLINE Mask equal(M a, M b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
NOS_CHILD_INLINE Mask unordered(M a, M b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
NOS_CHILD_INLINE Mask positive_or_nan(M a) { return _mm256_cmp_ps(a, zero(), _CMP_NLE_UQ); }
NOS_CHILD_INLINE M keep(Mask m, M a) { return _mm256_and_ps(m, a); }
NOS_CHILD_INLINE M select(Mask m, M a, M b) { return _mm256_blendv_ps(b, a, m); }
NOS_CHILD_INLINE float sum(const M* a) {
  const __m256 v = _mm256_add_ps(a[0], a[1]);
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  return _mm_cvtss_f32(_mm_add_ss(w, _mm_movehdup_ps(w)));
}
NOS_CHILD_INLINE M sums_of(const M (*a)[2]) {
  M quads[4], pairs[2];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const M x = a[k][0] + a[k][1], y = a[k + 4][0] + a[k + 4][1];
    quads[k] = _mm256_permute2f128_ps(x, y, 0x20) + _mm256_permute2f128_ps(x, y, 0x31);
  }
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k)
    pairs[k] = _mm256_shuffle_ps(quads[2 * k], quads[2 * k + 1], 0x44) +
               _mm256_shuffle_ps(quads[2 * k], quads[2 * k + 1], 0xee);
  return _mm256_shuffle_ps(pairs[0], pairs[1], 0x88) + _mm256_shuffle_ps(pairs[0], pairs[1], 0xdd);
}
#elif defined(__ARM_NEON)
using M = float32x4_t;
inline constexpr int kWidth = 4;
inline constexpr int kTileFilters = 8, kTileVectors = 3;
NOS_CHILD_INLINE M load(const float* p) { return vld1q_f32(p); }
NOS_CHILD_INLINE void store(float* p, M a) { vst1q_f32(p, a); }
NOS_CHILD_INLINE M splat(float x) { return vdupq_n_f32(x); }
NOS_CHILD_INLINE M zero() { return vdupq_n_f32(0); }
NOS_CHILD_INLINE M fma(M a, M b, M c) { return vfmaq_f32(c, a, b); }
NOS_CHILD_INLINE M max(M a, M b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // b where one is NaN, as on x86
NOS_CHILD_INLINE M zip_low(M a, M b) { return vzip1q_f32(a, b); }
NOS_CHILD_INLINE M zip_high(M a, M b) { return vzip2q_f32(a, b); }
using Mask = uint32x4_t;
NOS_CHILD_INLINE Mask equal(M a, M b) { return vceqq_f32(a, b); }
NOS_CHILD_INLINE Mask unordered(M a, M b) { return vmvnq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b))); }
NOS_CHILD_INLINE Mask positive_or_nan(M a) { return vmvnq_u32(vcleq_f32(a, zero())); }
NOS_CHILD_INLINE M keep(Mask m, M a) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a))); }
NOS_CHILD_INLINE M select(Mask m, M a, M b) { return vbslq_f32(m, a, b); }
NOS_CHILD_INLINE float sum(const M* a) {
  const M w = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
  const float32x2_t h = vadd_f32(vget_low_f32(w), vget_high_f32(w));
  return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
NOS_CHILD_INLINE M sums_of(const M (*a)[4]) {
  float32x2_t pairs[4];
  for (int k = 0; k < 4; ++k) {
    const M w = (a[k][0] + a[k][2]) + (a[k][1] + a[k][3]);
    pairs[k] = vadd_f32(vget_low_f32(w), vget_high_f32(w));
  }
  return vpaddq_f32(vcombine_f32(pairs[0], pairs[1]), vcombine_f32(pairs[2], pairs[3]));
}
#endif

inline constexpr int kParts = kLanes / kWidth;  // machine vectors of a logical one

// Keeps x in a register. Otherwise the compiler loads it again for every use, and loads are as scarce as products.
NOS_CHILD_INLINE M pinned(M x) {
#if defined(__ARM_NEON)
  asm("" : "+w"(x));
#else
  asm("" : "+v"(x));
#endif
  return x;
}

// Returns the sum over the lanes of one logical vector in memory.
NOS_CHILD_INLINE float sum_of(const float* lanes) {
  M parts[kParts];
  for (int part = 0; part < kParts; ++part) parts[part] = load(lanes + part * kWidth);
  return sum(parts);
}

// Writes to out[n] the sum over the lanes of logical vector n in memory. `out` may be where the vectors begin.
NOS_CHILD_INLINE void sum_lanes(const float* vectors, int count, float* out) {
  int n = 0;
  for (; count - n >= kWidth; n += kWidth) {
    M all[kWidth][kParts];
#pragma GCC unroll 16
    for (int k = 0; k < kWidth; ++k)
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) all[k][part] = load(vectors + (n + k) * kLanes + part * kWidth);
    store(out + n, sums_of(all));
  }
  for (; n < count; ++n) out[n] = sum_of(vectors + n * kLanes);
}

// Adds the logical vector x to the one in memory.
NOS_CHILD_INLINE void add(float* sums, M x) { store(sums, load(sums) + x); }

// Adds the vectors of a list of lanes to one logical vector in memory.
NOS_CHILD_INLINE void add_list(const float* list, int lanes, float* sums) {
  for (int part = 0; part < kLanes; part += kWidth) {
    M s = load(list + part);
    for (int v = part + kLanes; v < lanes; v += kLanes) s = s + load(list + v);
    add(sums + part, s);
  }
}

}  // namespace nos::child::NOS_CHILD_ISA
