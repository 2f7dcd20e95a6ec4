// The table of block kernels, and those of conversions: from and to storage in half precision and in codes. This file
// is compiled once per instruction set, and NOS_ISA names the build. Everything in it, and in the headers in kernels/
// that only it includes, has internal linkage: if two builds shared an inline function, the linker might keep the copy
// with instructions that the machine lacks.
#include "kernels.h"

#include <type_traits>
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

#include "../../ops/convert.h"
#include "../../ops/math.h"
#include "../../ops/philox.h"
#include "kernels/draws.h"
#include "kernels/folds.h"
#include "kernels/inline.h"
#include "kernels/maps.h"

namespace nos::cpu {
namespace {

template <class T>
constexpr KernelSet<T> kernel_set() {
  KernelSet<T> set{};
#define NOS_ROW_any(id, arity) add_maps<T, fn_##id, arity>(set.map[static_cast<int>(Op::id)]);
#define NOS_ROW_scalar(id, arity)
#define NOS_ROW_random(id, arity) set.random[static_cast<int>(Op::id)] = id<T>;
#define NOS_ROW_reduce(id, arity)
#define NOS_ROW_global(id, arity)
#define NOS_OP(id, arity, domain, ...) NOS_ROW_##domain(id, arity)
#include "../../ops/ops.def"
#undef NOS_OP
  set.fold[static_cast<int>(Fold::sum)] = fold_sum<T>;
  set.fold[static_cast<int>(Fold::dot)] = fold_dot<T>;
  set.fold[static_cast<int>(Fold::max_abs)] = fold_max_abs<T>;
  set.copy = copy<T>;
  set.fill = fill<T>;
  set.scale = scale<T>;
  return set;
}

void from_bf16(float* dst, const uint16_t* src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = math::bf16_to_f32(src[i]);
}
void from_f16(float* dst, const uint16_t* src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = math::f16_to_f32(src[i]);
}
void to_bf16(uint16_t* dst, const float* src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = math::f32_to_bf16(src[i]);
}
void to_f16(uint16_t* dst, const float* src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = math::f32_to_f16(src[i]);
}

struct Lanes {
  uint32_t of[philox::kRoundingBlock];
};
constexpr Lanes scatter() {
  Lanes out{};
  for (uint32_t i = 0; i < philox::kRoundingBlock; ++i) out.of[i] = philox::scattered_lane(i);
  return out;
}
alignas(64) constexpr Lanes kScattered = scatter();

template <uint16_t (*Round)(float, uint32_t)>
void to_half_stochastic(uint16_t* dst, const float* src, const RoundingKeys& keys, int64_t n) {
  int64_t lane = keys.lane;
  for (const philox::RoundingKey* key = keys.of; n > 0; ++key, lane = 0) {
    const philox::RoundingKey own = *key;
    const uint32_t* lanes = kScattered.of + lane;
    const int64_t rest = philox::kRoundingBlock - lane;
    const int64_t count = n < rest ? n : rest;
    for (int64_t i = 0; i < count; ++i) dst[i] = Round(src[i], philox::word_of_scattered(own, lanes[i]));
    dst += count, src += count, n -= count;
  }
}

template <class Code>
constexpr bool kSigned = std::is_same_v<Code, int8_t>;
template <class Code>
constexpr int32_t kLargest = kSigned<Code> ? math::kLargestI8 : math::kLargestU8;

template <class Code>
void from_codes(float* dst, const Code* src, const float* scales, int64_t n) {
  for (int64_t first = 0; first < n; first += kScaleBlock) {
    const int64_t stop = n - first < kScaleBlock ? n : first + kScaleBlock;
    const float scale = *scales++;
#pragma GCC ivdep
    for (int64_t i = first; i < stop; ++i) dst[i] = math::from_code(src[i], scale);
  }
}

// The parts of a distance from which on elements are rounded up: 0.5 for all of them, or a drawn one for each.
struct Halfway {
  NOS_HD float at(int64_t) const { return 0.5f; }
#if defined(__AVX512BW__)
  NOS_HD __m512 sixteen(int64_t) const { return _mm512_set1_ps(0.5f); }
#endif
};
struct Drawn {
  philox::RoundingKey key;
  const uint32_t* lanes;
  NOS_HD float at(int64_t i) const { return philox::rounding_part(philox::word_of_scattered(key, lanes[i])); }
#if defined(__AVX512BW__)
  NOS_HD __m512 sixteen(int64_t i) const {  // the same from i on
    const __m512i factor = _mm512_set1_epi32(static_cast<int>(key.factor));
    const __m512i start = _mm512_set1_epi32(static_cast<int>(key.start));
    const __m512i word = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_loadu_si512(lanes + i), factor), start);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(word), _mm512_set1_ps(0x1p-32f), _mm512_set1_ps(0.5f));
  }
#endif
};

#if defined(__AVX512BW__)
// math::to_code of 64 elements. What is left to do when the lower codes and the choices between neighbours are known is
// done to bytes, and saturation is the largest code. GCC does neither.
template <class Code, class Parts>
NOS_INLINE void to_64_codes(Code* dst, const float* src, float inverse, const Parts& parts, int64_t first) {
  const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f), scale = _mm512_set1_ps(inverse);
  __m512i lower[4];
  __mmask16 upper[4], negative[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512 x = _mm512_loadu_ps(src + 16 * k);
    const __m512 units = _mm512_mul_ps(kSigned<Code> ? _mm512_abs_ps(x) : x, scale);
    lower[k] = _mm512_cvttps_epi32(_mm512_sqrt_ps(units));
    const __m512 c = _mm512_cvtepi32_ps(lower[k]);
    const __m512 above = _mm512_fnmadd_ps(c, c, units);
    const __m512 part = _mm512_min_ps(c, parts.sixteen(first + 16 * k));
    const __m512 between = _mm512_mul_ps(part, _mm512_fmadd_ps(two, c, one));
    upper[k] = _mm512_cmp_ps_mask(between, above, _CMP_LT_OQ);
    negative[k] = _mm512_movepi32_mask(_mm512_castps_si512(x));
  }
  const auto join = [](const __mmask16(&m)[4]) {
    return _mm512_kunpackd(_mm512_kunpackw(m[3], m[2]), _mm512_kunpackw(m[1], m[0]));
  };
  // packing goes by quarters of a register: four of the first, four of the second ...
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i codes = _mm512_packus_epi16(_mm512_packs_epi32(lower[0], lower[1]), _mm512_packs_epi32(lower[2], lower[3]));
  codes = _mm512_permutexvar_epi32(order, codes);
  if constexpr (kSigned<Code>) {
    codes = _mm512_mask_adds_epi8(codes, join(upper), codes, ones);
    codes = _mm512_mask_sub_epi8(codes, join(negative), _mm512_setzero_si512(), codes);
  } else {
    codes = _mm512_mask_adds_epu8(codes, join(upper), codes, ones);
  }
  _mm512_storeu_si512(dst, codes);
}
#endif

// Calls visit(block, first, count) for each block of scales: its number, its first element and how many it has.
template <class Visit>
NOS_INLINE void for_scale_blocks(int64_t n, const Visit& visit) {
  for (int64_t first = 0; first < n; first += kScaleBlock)
    visit(first / kScaleBlock, first, n - first < kScaleBlock ? n - first : kScaleBlock);
}

template <class Code>
void find_scales(float* scales, const float* src, int64_t n) {
  for_scale_blocks(n, [&](int64_t block, int64_t first, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = first; i < first + count; ++i) {
      const uint32_t bits = math::size_bits(src[i], kSigned<Code>);
      largest = bits > largest ? bits : largest;
    }
    scales[block] = math::scale_of(largest, kLargest<Code>);
  });
}

// Codes of a block whose scale is neither 0 nor NaN.
template <class Code, class Parts>
NOS_INLINE void encode(Code* dst, const float* src, float scale, const Parts& parts, int64_t n) {
  const float inverse = divide(1.0f, scale);
  int64_t i = 0;
#if defined(__AVX512BW__)
  for (; i + 64 <= n; i += 64) to_64_codes(dst + i, src + i, inverse, parts, i);
#endif
  int32_t wide[kScaleBlock];  // in one loop with the narrow stores, GCC keeps four vectors of everything
  for (int64_t k = i; k < n; ++k) {
    const float magnitude = kSigned<Code> ? math::abs<float>(src[k]) : src[k];
    const int32_t code = math::to_code(magnitude, inverse, parts.at(k), kLargest<Code>);
    wide[k] = kSigned<Code> && src[k] < 0.0f ? -code : code;
  }
  for (; i < n; ++i) dst[i] = static_cast<Code>(wide[i]);
}

// parts_of(first) is a Halfway or a Drawn for the block that begins there.
template <class Code, class PartsOf>
NOS_INLINE void encode_blocks(Code* dst, const float* scales, const float* src, int64_t n, const PartsOf& parts_of) {
  for_scale_blocks(n, [&](int64_t block, int64_t first, int64_t count) {
    if (scales[block] > 0.0f)
      encode(dst + first, src + first, scales[block], parts_of(first), count);
    else
      for (int64_t i = first; i < first + count; ++i) dst[i] = 0;
  });
}

template <class Code>
void to_codes(Code* dst, const float* scales, const float* src, int64_t n) {
  encode_blocks(dst, scales, src, n, [](int64_t) { return Halfway{}; });
}

static_assert(philox::kRoundingBlock % kScaleBlock == 0, "a block of scales has one key");
template <class Code>
void to_codes_stochastic(Code* dst, const float* scales, const float* src, const RoundingKeys& keys, int64_t n) {
  encode_blocks(dst, scales, src, n, [&](int64_t first) {
    const uint64_t lane = keys.lane + static_cast<uint64_t>(first);
    return Drawn{keys.of[lane / philox::kRoundingBlock], kScattered.of + lane % philox::kRoundingBlock};
  });
}

constexpr Kernels kKernels = {kernel_set<float>(),
                              kernel_set<double>(),
                              from_bf16,
                              from_f16,
                              to_bf16,
                              to_f16,
                              to_half_stochastic<math::f32_to_bf16_stochastic>,
                              to_half_stochastic<math::f32_to_f16_stochastic>,
                              from_codes<int8_t>,
                              from_codes<uint8_t>,
                              find_scales<int8_t>,
                              find_scales<uint8_t>,
                              to_codes<int8_t>,
                              to_codes<uint8_t>,
                              to_codes_stochastic<int8_t>,
                              to_codes_stochastic<uint8_t>};

}  // namespace

#define NOS_JOIN2(a, b) a##b
#define NOS_JOIN(a, b) NOS_JOIN2(a, b)
const Kernels& NOS_JOIN(kernels_, NOS_ISA)() { return kKernels; }

}  // namespace nos::cpu
