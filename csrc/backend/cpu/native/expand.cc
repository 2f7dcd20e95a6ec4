#include "expand.h"

namespace nos::cpu::native {
namespace {

constexpr uint32_t kOne = 0x3f800000, kHalf = 0x3f000000, kSignBit = 0x80000000, kZero = 0;
// vfixupimmps: response by class of the input, four bits each: quiet NaN, signalling NaN -> quiet NaN; zero -> +0; 1,
// -inf, +inf, negative, positive -> +-1.
constexpr uint32_t kSignTable = 0xa9a9a822;

}  // namespace

uint16_t Expander::at(Home home) {
  for (uint16_t v : homes_)
    if (segment_.values[v] == home) return v;
  segment_.values.push_back(home);
  homes_.push_back(static_cast<uint16_t>(segment_.values.size() - 1));
  return homes_.back();
}

uint16_t Expander::emit(V op, std::initializer_list<uint16_t> src, uint8_t predicate) {
  VInstr i{op, predicate, static_cast<uint16_t>(segment_.values.size()), {0, 0, 0, 0}};
  int k = 0;
  for (uint16_t s : src) i.src[k++] = s;
  segment_.values.push_back({});
  segment_.code.push_back(i);
  return i.dst;
}

void Expander::store(uint16_t value, Home to) { segment_.code.push_back({V::store, 0, at(to), {value, 0, 0, 0}}); }

// vminps returns its second source for a NaN and for two zeros: enough when the first is a number other than 0.
uint16_t Expander::minimum(uint16_t a, uint16_t b, bool a_number, bool b_number) {
  if (a_number) return emit(V::min, {a, b});
  if (b_number) return emit(V::min, {b, a});
  const uint16_t p = emit(V::min, {a, b});
  const uint16_t q = emit(V::min, {b, a});
  return emit(V::bor, {p, q});
}

// The two orders differ for a NaN, where OR keeps it, and for zeros of opposite sign, which must give +0.
uint16_t Expander::maximum(uint16_t a, uint16_t b, bool a_number, bool b_number) {
  if (a_number) return emit(V::max, {a, b});
  if (b_number) return emit(V::max, {b, a});
  const uint16_t p = emit(V::max, {a, b});
  const uint16_t q = emit(V::max, {b, a});
  if (target_ == Target::avx512) return emit(V::join, {p, q, constant(kSignBit)});
  const uint16_t joined = emit(V::bor, {p, q});
  return emit(V::sub, {joined, emit(V::bxor, {p, q})});
}

uint16_t Expander::sign(uint16_t a) {
  if (target_ == Target::avx512) return emit(V::sign, {a, constant(kSignTable)});
  const uint16_t unit = emit(V::bor, {emit(V::band, {a, constant(kSignBit)}), constant(kOne)});
  const uint16_t nonzero = emit(V::mask, {a, constant(kZero)}, kNotEqualOrdered);
  const uint16_t s = emit(V::band, {unit, nonzero});  // +0 for zeros and NaN
  return emit(V::bor, {s, emit(V::mask, {a, a}, kUnordered)});
}

// Correctly rounded quotient by a scalar, from its reciprocal in two parts: q is within one ulp, and then one step with
// the exact remainder rounds right (Markstein, IBM J. Res. Dev. 34, 1990; docs/numerics.md). The multiplications run
// beside the divider, which the rest of a rule keeps busy for 8 to 16 cycles a vector.
uint16_t Expander::quotient(uint16_t a, uint16_t c, int divisor) {
  if (target_ != Target::avx512) return emit(V::div, {a, c});
  const auto word = [&](int k) {
    return at({Home::scalar, static_cast<uint32_t>(first_divisor_ + divisor * kDivisorWords + k)});
  };
  const uint16_t high = word(0), low = word(1);
  const uint16_t q = emit(V::fma, {a, high, emit(V::mul, {a, low})});
  const uint16_t rest = emit(V::fnma, {q, c, a});
  return emit(V::div_fix, {emit(V::fma, {rest, high, q}), a, c, word(2)});
}

// f32::rsqrt of math_f32.h, operation for operation.
uint16_t Expander::rsqrt(uint16_t x) {
  const uint16_t one = constant(kOne), sign_bit = constant(kSignBit);
  const uint16_t y = emit(V::div, {one, emit(V::sqrt, {x})});
  const uint16_t minus_h = emit(V::bxor, {emit(V::mul, {x, y}), sign_bit});
  const uint16_t minus_l = emit(V::bxor, {emit(V::fma, {x, y, minus_h}), sign_bit});
  const uint16_t residual = emit(V::fma, {minus_l, y, emit(V::fma, {minus_h, y, one})});
  const uint16_t better = emit(V::fma, {emit(V::mul, {y, constant(kHalf)}), residual, y});
  return select(kUnordered, better, better, y, better);
}

uint16_t Expander::test(uint8_t predicate, uint16_t a, uint16_t b) {
  if (target_ == Target::avx512) return emit(V::test, {a, b, constant(kOne)}, predicate);
  return emit(V::band, {emit(V::mask, {a, b}, predicate), constant(kOne)});
}

uint16_t Expander::op(Op op, const uint16_t s[3], const bool n[3]) {
  switch (static_cast<ElementOp>(op)) {
#define NOS_KERNEL(id, ns) \
  case ElementOp::id:      \
    break;
#define NOS_LOOP(id, ns, code) \
  case ElementOp::id:          \
    return code;
#define NOS_COMPARE(id, ns, predicate) \
  case ElementOp::id:                  \
    return test(predicate, s[0], s[1]);
#include "native.def"
#undef NOS_KERNEL
#undef NOS_LOOP
#undef NOS_COMPARE
  }
  throw std::logic_error("fused loops have no code for op " + std::string(info(op).name));
}

}  // namespace nos::cpu::native
