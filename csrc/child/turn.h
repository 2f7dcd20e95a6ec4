// Owns turn(): rows become columns, in registers. It moves numbers and computes nothing. Compiled once per instruction
// set.
#pragma once
#include "lanes.h"

namespace nos::child::NOS_CHILD_ISA {

// Transposes a square of kWidth vectors: vector n held row n before, and holds column n after.
#if defined(__AVX512F__)
NOS_CHILD_INLINE M pairs(M a, M b, bool high) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
}
NOS_CHILD_INLINE void turn(M* rows) {
  M a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)  // quarter q of b[i + j]: column 4 q + j of rows i ... i + 3
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) b[i + j] = pairs(a[i + j / 2], a[i + 2 + j / 2], j % 2);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const M even = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88),
            even_low = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
    const M odd = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd), odd_low = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
    rows[j] = _mm512_shuffle_f32x4(even, even_low, 0x88);
    rows[4 + j] = _mm512_shuffle_f32x4(odd, odd_low, 0x88);
    rows[8 + j] = _mm512_shuffle_f32x4(even, even_low, 0xdd);
    rows[12 + j] = _mm512_shuffle_f32x4(odd, odd_low, 0xdd);
  }
}
#elif defined(__AVX2__)
NOS_CHILD_INLINE M pairs(M a, M b, bool high) {
  const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
  return _mm256_castpd_ps(high ? _mm256_unpackhi_pd(x, y) : _mm256_unpacklo_pd(x, y));
}
NOS_CHILD_INLINE void turn(M* rows) {
  M a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)  // half h of b[i + j]: column 4 h + j of rows i ... i + 3
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) b[i + j] = pairs(a[i + j / 2], a[i + 2 + j / 2], j % 2);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
    rows[4 + j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
  }
}
#elif defined(__ARM_NEON)
NOS_CHILD_INLINE void turn(M* rows) {
  const float32x4x2_t upper = vtrnq_f32(rows[0], rows[1]), lower = vtrnq_f32(rows[2], rows[3]);
  for (int j = 0; j < 2; ++j) {
    rows[j] = vcombine_f32(vget_low_f32(upper.val[j]), vget_low_f32(lower.val[j]));
    rows[2 + j] = vcombine_f32(vget_high_f32(upper.val[j]), vget_high_f32(lower.val[j]));
  }
}
#endif

}  // namespace nos::child::NOS_CHILD_ISA
