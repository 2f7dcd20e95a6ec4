// The block kernels. This file is compiled once per instruction set, and NOS_ISA names the build. Everything in it has
// internal linkage: if two builds shared an inline function, the linker might keep the copy with instructions that the
// machine lacks.
#include "kernels.h"

#include <type_traits>
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

#include "../../ops/convert.h"
#include "../../ops/math.h"
#include "../../ops/philox.h"

namespace nos::cpu {
namespace {

#define NOS_INLINE [[gnu::always_inline]] static inline

// One functor per element-wise op, so that a kernel can be a template over it.
#define NOS_FUNCTOR_any(id)                   \
  struct fn_##id {                            \
    template <class T, class... Rest>         \
    NOS_INLINE T run(T first, Rest... rest) { \
      return math::id<T>(first, rest...);     \
    }                                         \
  };
#define NOS_FUNCTOR_scalar(id)
#define NOS_FUNCTOR_random(id)
#define NOS_FUNCTOR_reduce(id)
#define NOS_FUNCTOR_global(id)
#define NOS_OP(id, arity, domain, ...) NOS_FUNCTOR_##domain(id)
#include "../../ops/ops.def"
#undef NOS_OP

// Bit k of S says that operand k is one scalar. `ivdep` is right since dst is an operand itself or does not overlap it.
template <class T, class F, int S>
void map1(T* dst, const T* a, const T*, const T*, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(a[i]);
}

template <class T, class F, int S>
void map2(T* dst, const T* a, const T* b, const T*, int64_t n) {
  [[maybe_unused]] const T as = *a, bs = *b;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(S & 1 ? as : a[i], S & 2 ? bs : b[i]);
}

// Like map2, but spreads the scalar over a short array first. pow needs this: GCC moves the tests of a loop-invariant
// operand out of the loop as scalar truth values, and then does not vectorise the selects that use them.
template <class T, class F, int S>
void map2_spread(T* dst, const T* a, const T* b, const T*, int64_t n) {
  constexpr int64_t kSpread = 128;
  T spread[kSpread];
  for (int64_t i = 0; i < kSpread; ++i) spread[i] = S & 1 ? *a : *b;
  for (int64_t i = 0; i < n; i += kSpread) {
    const int64_t count = n - i < kSpread ? n - i : kSpread;
    map2<T, F, 0>(dst + i, S & 1 ? spread : a + i, S & 2 ? spread : b + i, nullptr, count);
  }
}

template <class T, class F, int S>
void map3(T* dst, const T* a, const T* b, const T* c, int64_t n) {
  [[maybe_unused]] const T as = *a, bs = *b, cs = *c;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = F::template run<T>(S & 1 ? as : a[i], S & 2 ? bs : b[i], S & 4 ? cs : c[i]);
}

template <class T, class F, int Arity>
constexpr void add_maps(MapFn<T> (&row)[8]) {
  if constexpr (Arity == 1) {
    row[0] = map1<T, F, 0>;
  } else if constexpr (std::is_same_v<F, fn_pow>) {
    row[0] = map2<T, F, 0>, row[1] = map2_spread<T, F, 1>, row[2] = map2_spread<T, F, 2>;
  } else if constexpr (Arity == 2) {
    row[0] = map2<T, F, 0>, row[1] = map2<T, F, 1>, row[2] = map2<T, F, 2>;
  } else {
    row[0] = map3<T, F, 0>, row[1] = map3<T, F, 1>, row[2] = map3<T, F, 2>, row[3] = map3<T, F, 3>;
    row[4] = map3<T, F, 4>, row[5] = map3<T, F, 5>, row[6] = map3<T, F, 6>;
  }
}

// Draws are made in groups of four. The groups of one block are independent, so the outer loop vectorises over groups.
constexpr int64_t kDrawGroups = 32;

template <class Draw, class Value>
NOS_INLINE void for_draws(DrawKey key, int64_t n, const Draw& draw, Value* buffer) {
  for (int64_t first = 0; first < n; first += 4 * kDrawGroups) {
    const uint64_t q0 = (key.element + static_cast<uint64_t>(first)) >> 2;
    for (int64_t g = 0; g < kDrawGroups; ++g) {
      const philox::Words w =
          philox::element_words(key.seed, key.step, key.tensor, key.site, q0 + static_cast<uint64_t>(g));
      draw.fill(w, buffer + 4 * g);
    }
    const int64_t stop = n - first < 4 * kDrawGroups ? n - first : 4 * kDrawGroups;
    for (int64_t i = 0; i < stop; ++i) draw.apply(first + i, buffer[i]);
  }
}

template <class T>
void drop(T* dst, const T* a, T prob, DrawKey key, int64_t n) {
  struct {
    T* dst;
    const T* a;
    T prob;
    NOS_HD void fill(const philox::Words& w, float* out) const { philox::uniform4(w, out); }
    NOS_HD void apply(int64_t i, float u) const { dst[i] = static_cast<T>(u) < prob ? T(0) : a[i]; }
  } draw{dst, a, prob};
  float buffer[4 * kDrawGroups];
  for_draws(key, n, draw, buffer);
}

template <class T>
void normal(T* dst, const T*, T std, DrawKey key, int64_t n) {
  struct {
    T* dst;
    T std;
    NOS_HD void fill(const philox::Words& w, float* out) const { philox::normal4(w, out); }
    NOS_HD void apply(int64_t i, float z) const { dst[i] = static_cast<T>(z) * std; }
  } draw{dst, std};
  float buffer[4 * kDrawGroups];
  for_draws(key, n, draw, buffer);
}

template <class T>
void copy(T* dst, const T* src, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i];
}

template <class T>
void fill(T* dst, T value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = value;
}

template <class T>
void scale(T* dst, const T* src, T factor, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i] * factor;
}

// One unit of a reduction is a balanced tree, in which the first step adds element i + 128 to element i and the last
// one the two that are left. What is missing of a unit is 0.
enum class FoldTerm { value, square, product, magnitude };  // of an element

template <FoldTerm F>
NOS_INLINE double join(double a, double b) {
  if constexpr (F == FoldTerm::magnitude)
    return (a >= b) | (a != a) ? a : b;
  else
    return a + b;
}

template <FoldTerm F, class T>
NOS_INLINE double term(T a, T b) {
  const double x = static_cast<double>(a);
  if constexpr (F == FoldTerm::square)
    return x * x;
  else if constexpr (F == FoldTerm::product)
    return x * static_cast<double>(b);
  else if constexpr (F == FoldTerm::magnitude)
    return math::abs<double>(x);
  else
    return x;
}

constexpr int64_t kSums = 64;  // of a unit, four elements each: with fewer, memory is read in jumps that are slow

// term(a, b) + term(c, d)
template <FoldTerm F, class T>
NOS_INLINE double pair(T a, T b, T c, T d) {
#ifdef __FP_FAST_FMA
  // Products of floats are exact in double, so this rounds no differently.
  if constexpr ((F == FoldTerm::square || F == FoldTerm::product) && std::is_same_v<T, float>)
    return __builtin_fma(static_cast<double>(a), static_cast<double>(F == FoldTerm::square ? a : b), term<F>(c, d));
#endif
  return join<F>(term<F>(a, b), term<F>(c, d));
}

// Adds up four rows of kSums elements.
template <FoldTerm F, class T>
NOS_INLINE double add_rows(const T* const (&a)[4], const T* const (&b)[4]) {
  double sum[kSums];
  for (int64_t i = 0; i < kSums; ++i)
    sum[i] = join<F>(pair<F>(a[0][i], b[0][i], a[2][i], b[2][i]), pair<F>(a[1][i], b[1][i], a[3][i], b[3][i]));
#pragma GCC unroll 8
  for (int64_t half = kSums / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) sum[i] = join<F>(sum[i], sum[i + half]);
  return sum[0];
}

template <FoldTerm F, class T>
NOS_INLINE double whole_unit(const T* a, const T* b) {
  return add_rows<F, T>({a, a + kSums, a + 2 * kSums, a + 3 * kSums}, {b, b + kSums, b + 2 * kSums, b + 3 * kSums});
}

// The same of n elements, fewer than a unit, with zeros for what is missing.
template <FoldTerm F, class T>
NOS_INLINE double part_of_unit(const T* a, const T* b, int64_t n) {
  static constexpr T kZeros[kSums] = {};
  T rest[2][kSums];
  const auto row = [&](T* room, const T* x, int64_t first) -> const T* {
    if (first >= n) return kZeros;
    if (first + kSums <= n) return x + first;
    for (int64_t i = 0; i < kSums; ++i) room[i] = first + i < n ? x[first + i] : T(0);
    return room;
  };
  const T *rows[4], *others[4];
  for (int64_t k = 0; k < 4; ++k) {
    rows[k] = row(rest[0], a, k * kSums);
    others[k] = F == FoldTerm::product ? row(rest[1], b, k * kSums) : rows[k];
  }
  return add_rows<F, T>(rows, others);
}
static_assert(kFoldUnit == 4 * kSums);

template <FoldTerm F, class T>
void fold_units(double* dst, const T* a, const T* b, int64_t n) {
  for (; n >= kFoldUnit; n -= kFoldUnit, a += kFoldUnit, b += kFoldUnit) *dst++ = whole_unit<F>(a, b);
  if (n) *dst = part_of_unit<F>(a, b, n);
}

template <class T>
void fold_sum(double* dst, const T* a, const T* b, int64_t n) {
  fold_units<FoldTerm::value>(dst, a, b, n);
}
template <class T>
void fold_dot(double* dst, const T* a, const T* b, int64_t n) {
  a == b ? fold_units<FoldTerm::square>(dst, a, b, n) : fold_units<FoldTerm::product>(dst, a, b, n);
}
template <class T>
void fold_max_abs(double* dst, const T* a, const T* b, int64_t n) {
  fold_units<FoldTerm::magnitude>(dst, a, b, n);
}

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
