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

// Calls visit(first, n, key, lanes) for each stretch of elements that round with the same key.
template <class Visit>
NOS_INLINE void for_rounding_keys(const DrawKey& key, uint32_t output, int64_t n, const Visit& visit) {
  for (int64_t first = 0; first < n;) {
    const uint64_t element = key.element + static_cast<uint64_t>(first);
    const auto lane = static_cast<uint32_t>(element % philox::kRoundingBlock);
    const int64_t rest = static_cast<int64_t>(philox::kRoundingBlock - lane);
    const int64_t count = n - first < rest ? n - first : rest;
    visit(first, count, philox::rounding_key(key.seed, key.step, key.tensor, output, element), kScattered.of + lane);
    first += count;
  }
}

template <uint16_t (*Round)(float, uint32_t)>
void to_half_stochastic(uint16_t* dst, const float* src, DrawKey key, uint32_t output, int64_t n) {
  for_rounding_keys(key, output, n, [&](int64_t first, int64_t count, philox::RoundingKey own, const uint32_t* lanes) {
    for (int64_t i = 0; i < count; ++i)
      dst[first + i] = Round(src[first + i], philox::word_of_scattered(own, lanes[i]));
  });
}

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
  constexpr bool kSigned = std::is_same_v<Code, int8_t>;
  const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f), scale = _mm512_set1_ps(inverse);
  __m512i lower[4];
  __mmask16 upper[4], negative[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512 x = _mm512_loadu_ps(src + 16 * k);
    const __m512 units = _mm512_mul_ps(kSigned ? _mm512_abs_ps(x) : x, scale);
    const __m512 root = _mm512_sqrt_ps(units);
    const __m512 c = _mm512_roundscale_ps(root, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    const __m512 above = _mm512_fnmadd_ps(c, c, units);
    const __m512 part = _mm512_min_ps(c, parts.sixteen(first + 16 * k));
    const __m512 between = _mm512_mul_ps(part, _mm512_fmadd_ps(two, c, one));
    upper[k] = _mm512_cmp_ps_mask(between, above, _CMP_LT_OQ);
    lower[k] = _mm512_cvttps_epi32(root);
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
  if constexpr (kSigned) {
    codes = _mm512_mask_adds_epi8(codes, join(upper), codes, ones);
    codes = _mm512_mask_sub_epi8(codes, join(negative), _mm512_setzero_si512(), codes);
  } else {
    codes = _mm512_mask_adds_epu8(codes, join(upper), codes, ones);
  }
  _mm512_storeu_si512(dst, codes);
}
#endif

// Elements. All scales are found before the first code is, so that these long chains of operations run side by side.
constexpr int64_t kCodedTogether = 1024;
static_assert(kCodedTogether % kScaleBlock == 0 && philox::kRoundingBlock % kScaleBlock == 0);

// Codes of n elements, at most kCodedTogether. parts_of(i) is a Halfway or a Drawn for the block that begins at i.
template <class Code, class PartsOf>
NOS_INLINE void encode(Code* dst, float* scales, const float* src, const PartsOf& parts_of, int64_t n) {
  constexpr bool kSigned = std::is_same_v<Code, int8_t>;
  constexpr int32_t kLargest = kSigned ? math::kLargestI8 : math::kLargestU8;
  constexpr int64_t kBlocks = kCodedTogether / kScaleBlock;
  const int64_t blocks = (n + kScaleBlock - 1) / kScaleBlock;
  const auto size = [n](int64_t block) {
    const int64_t rest = n - block * kScaleBlock;
    return rest < kScaleBlock ? rest : kScaleBlock;
  };
  uint32_t most[kBlocks] = {};
  for (int64_t k = 0; k < blocks; ++k) {
    uint32_t largest = 0;
    const float* x = src + k * kScaleBlock;
    for (int64_t i = 0; i < size(k); ++i) {
      const uint32_t bits = math::size_bits(x[i], kSigned);
      largest = bits > largest ? bits : largest;
    }
    most[k] = largest;
  }
  float own[kBlocks], inverse[kBlocks];
  for (int64_t k = 0; k < kBlocks; ++k) {
    own[k] = math::scale_of(most[k], kLargest);
    inverse[k] = divide(1.0f, own[k]);
  }
  for (int64_t k = 0; k < blocks; ++k) {
    scales[k] = own[k];
    Code* codes = dst + k * kScaleBlock;
    const float* x = src + k * kScaleBlock;
    int64_t first = 0;
    if (!(own[k] > 0.0f)) {
      for (; first < size(k); ++first) codes[first] = 0;
      continue;
    }
    const auto parts = parts_of(k * kScaleBlock);
#if defined(__AVX512BW__)
    for (; first + 64 <= size(k); first += 64) to_64_codes(codes + first, x + first, inverse[k], parts, first);
#endif
    int32_t wide[kScaleBlock];  // in one loop with the narrow stores, GCC keeps four vectors of everything
    for (int64_t i = first; i < size(k); ++i) {
      const float magnitude = kSigned ? math::abs<float>(x[i]) : x[i];
      const int32_t code = math::to_code(magnitude, inverse[k], parts.at(i), kLargest);
      wide[i] = kSigned && x[i] < 0.0f ? -code : code;
    }
    for (int64_t i = first; i < size(k); ++i) codes[i] = static_cast<Code>(wide[i]);
  }
}

template <class Code>
void to_codes(Code* dst, float* scales, const float* src, int64_t n) {
  for (int64_t first = 0; first < n; first += kCodedTogether)
    encode(
        dst + first, scales + first / kScaleBlock, src + first, [](int64_t) { return Halfway{}; },
        n - first < kCodedTogether ? n - first : kCodedTogether);
}

template <class Code>
void to_codes_stochastic(Code* dst, float* scales, const float* src, DrawKey key, uint32_t output, int64_t n) {
  for (int64_t first = 0; first < n; first += kCodedTogether) {
    const uint64_t element = key.element + static_cast<uint64_t>(first);
    constexpr uint64_t kUnit = philox::kRoundingBlock;
    const int64_t count = n - first < kCodedTogether ? n - first : kCodedTogether;
    philox::RoundingKey keys[kCodedTogether / kUnit + 1];
    for (uint64_t at = element / kUnit; at * kUnit < element + static_cast<uint64_t>(count); ++at)
      keys[at - element / kUnit] = philox::rounding_key(key.seed, key.step, key.tensor, output, at * kUnit);
    const auto drawn = [&](int64_t i) {
      const uint64_t lane = element % kUnit + static_cast<uint64_t>(i);
      return Drawn{keys[lane / kUnit], kScattered.of + lane % kUnit};
    };
    encode(dst + first, scales + first / kScaleBlock, src + first, drawn, count);
  }
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
                              to_codes<int8_t>,
                              to_codes<uint8_t>,
                              to_codes_stochastic<int8_t>,
                              to_codes_stochastic<uint8_t>};

}  // namespace

#define NOS_JOIN2(a, b) a##b
#define NOS_JOIN(a, b) NOS_JOIN2(a, b)
const Kernels& NOS_JOIN(kernels_, NOS_ISA)() { return kKernels; }

}  // namespace nos::cpu
