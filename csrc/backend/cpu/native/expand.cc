#include "expand.h"

namespace nos::cpu::native {
namespace {

constexpr uint32_t kOne = 0x3f800000, kHalf = 0x3f000000, kSignBit = 0x80000000, kZero = 0;
// What vfixupimmps returns for each class of numbers, four bits for each class: a quiet NaN for NaN; +0 for zeros; +1
// or -1 for 1, -inf, +inf, negative and positive numbers.
constexpr uint32_t kSignResponses = 0xa9a9a822;

}  // namespace

uint16_t Expander::at(Home home) {
  for (uint16_t v : homes_)
    if (loop_.values[v] == home) return v;
  loop_.values.push_back(home);
  homes_.push_back(static_cast<uint16_t>(loop_.values.size() - 1));
  return homes_.back();
}

uint16_t Expander::emit(VOp op, std::initializer_list<uint16_t> src, uint8_t predicate) {
  ValueInstr i{op, predicate, static_cast<uint16_t>(loop_.values.size()), {0, 0, 0, 0}};
  int k = 0;
  for (uint16_t s : src) i.src[k++] = s;
  loop_.values.push_back({});
  loop_.code.push_back(i);
  return i.dst;
}

void Expander::store(uint16_t value, Home to) { loop_.code.push_back({VOp::store, 0, at(to), {value, 0, 0, 0}}); }

// vminps returns its second source when a source is NaN and when both are zeros. So one vminps is right when the first
// source is a number other than 0.
uint16_t Expander::minimum(uint16_t a, uint16_t b, bool a_number, bool b_number) {
  if (a_number) return emit(VOp::min, {a, b});
  if (b_number) return emit(VOp::min, {b, a});
  const uint16_t p = emit(VOp::min, {a, b});
  const uint16_t q = emit(VOp::min, {b, a});
  return emit(VOp::bor, {p, q});
}

// The two orders of vmaxps differ only for a NaN, which OR keeps, and for zeros of opposite sign, which must give +0.
uint16_t Expander::maximum(uint16_t a, uint16_t b, bool a_number, bool b_number) {
  if (a_number) return emit(VOp::max, {a, b});
  if (b_number) return emit(VOp::max, {b, a});
  const uint16_t p = emit(VOp::max, {a, b});
  const uint16_t q = emit(VOp::max, {b, a});
  if (target_ == Target::avx512) return emit(VOp::join, {p, q, constant(kSignBit)});
  const uint16_t joined = emit(VOp::bor, {p, q});
  return emit(VOp::sub, {joined, emit(VOp::bxor, {p, q})});
}

uint16_t Expander::sign(uint16_t a) {
  if (target_ == Target::avx512) return emit(VOp::sign, {a, constant(kSignResponses)});
  const uint16_t unit = emit(VOp::bor, {emit(VOp::band, {a, constant(kSignBit)}), constant(kOne)});
  const uint16_t nonzero = emit(VOp::mask, {a, constant(kZero)}, kNotEqualOrdered);
  const uint16_t s = emit(VOp::band, {unit, nonzero});  // +0 for zeros and NaN
  return emit(VOp::bor, {s, emit(VOp::mask, {a, a}, kUnordered)});
}

// The correctly rounded quotient by a scalar, computed from the scalar's reciprocal in two parts. q is within one ulp,
// and one correction with the exact remainder rounds it right (Markstein, IBM J. Res. Dev. 34, 1990; docs/numerics.md).
// This pays only while the divider is busy with other nodes, which Builder::choose_quotients (graph.cc) makes sure of.
uint16_t Expander::quotient(uint16_t a, uint16_t c, int divisor) {
  if (target_ != Target::avx512) return emit(VOp::div, {a, c});
  const auto word = [&](int k) {
    return at({Home::scalar, static_cast<uint32_t>(first_divisor_ + divisor * kDivisorWords + k)});
  };
  const uint16_t high = word(0), low = word(1);
  const uint16_t q = emit(VOp::fma, {a, high, emit(VOp::mul, {a, low})});
  const uint16_t rest = emit(VOp::fnma, {q, c, a});
  return emit(VOp::div_fix, {emit(VOp::fma, {rest, high, q}), a, c, word(2)});
}

// The same operations as f32::rsqrt of math_f32.h.
uint16_t Expander::rsqrt(uint16_t x) {
  const uint16_t one = constant(kOne), sign_bit = constant(kSignBit);
  const uint16_t y = emit(VOp::div, {one, emit(VOp::sqrt, {x})});
  const uint16_t minus_h = emit(VOp::bxor, {emit(VOp::mul, {x, y}), sign_bit});
  const uint16_t minus_l = emit(VOp::bxor, {emit(VOp::fma, {x, y, minus_h}), sign_bit});
  const uint16_t residual = emit(VOp::fma, {minus_l, y, emit(VOp::fma, {minus_h, y, one})});
  const uint16_t better = emit(VOp::fma, {emit(VOp::mul, {y, constant(kHalf)}), residual, y});
  return select(kUnordered, better, better, y, better);
}

uint16_t Expander::test(uint8_t predicate, uint16_t a, uint16_t b) {
  if (target_ == Target::avx512) return emit(VOp::test, {a, b, constant(kOne)}, predicate);
  return emit(VOp::band, {emit(VOp::mask, {a, b}, predicate), constant(kOne)});
}

uint16_t Expander::op(Op op, const uint16_t s[3], const bool n[3]) {
  switch (static_cast<ElementOp>(op)) {
#define NOS_KERNEL(id, ns) \
  case ElementOp::id:      \
    break;
#define NOS_LOOP(id, code) \
  case ElementOp::id:      \
    return code;
#define NOS_COMPARE(id, predicate) \
  case ElementOp::id:              \
    return test(predicate, s[0], s[1]);
#include "native.def"
#undef NOS_KERNEL
#undef NOS_LOOP
#undef NOS_COMPARE
  }
  throw std::logic_error("fused loops have no code for op " + std::string(info(op).name));
}

}  // namespace nos::cpu::native
