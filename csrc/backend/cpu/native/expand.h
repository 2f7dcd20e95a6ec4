// Owns Expander, which appends the vector code of one op to a loop. The code computes the same bits as math.h.
#pragma once
#include <initializer_list>

#include "graph.h"
#include "loop.h"

namespace nos::cpu::native {

// Expander::quotient is right for positive divisors in this range, and for dividends that are +0 or whose magnitude,
// read as bits, is less than kDividendReach above kLeastDividend.
inline constexpr float kLeastDivisor = 0x1p-30f, kMostDivisor = 0x1p30f;
inline constexpr uint32_t kLeastDividend = (127u - 80) << 23, kDividendReach = 160u << 23;

class Expander {
 public:
  // `first_divisor` is where the divisors begin in the scalar row.
  Expander(ValueLoop& loop, Target target, int first_divisor)
      : loop_(loop), target_(target), first_divisor_(first_divisor) {}

  // Returns the value with this home in memory. Equal homes are the same value.
  uint16_t at(Home home);
  uint16_t constant(uint32_t bits) { return at({Home::constant, bits}); }

  // Returns the value op(src). is_number[k] says that source k is a constant that is neither 0 nor NaN.
  uint16_t op(Op op, const uint16_t src[3], const bool is_number[3]);
  // Returns a / c, where the scalar c is divisor number `divisor` of the graph.
  uint16_t quotient(uint16_t a, uint16_t c, int divisor);
  uint16_t lookup(uint16_t sign_product, int table) {
    return emit(VOp::lookup, {sign_product, at({Home::table, static_cast<uint32_t>(table)})});
  }
  // predicate(a, b) ? yes : no
  uint16_t select(uint8_t predicate, uint16_t a, uint16_t b, uint16_t yes, uint16_t no) {
    return emit(VOp::select, {a, b, yes, no}, predicate);
  }
  uint16_t copy(uint16_t a) { return emit(VOp::copy, {a}); }
  void store(uint16_t value, Home to);

 private:
  uint16_t emit(VOp op, std::initializer_list<uint16_t> src, uint8_t predicate = 0);
  uint16_t minimum(uint16_t a, uint16_t b, bool a_number, bool b_number);
  uint16_t maximum(uint16_t a, uint16_t b, bool a_number, bool b_number);
  uint16_t sign(uint16_t a);
  uint16_t rsqrt(uint16_t x);
  uint16_t test(uint8_t predicate, uint16_t a, uint16_t b);

  ValueLoop& loop_;
  std::vector<uint16_t> homes_;  // the values that have a home
  const Target target_;
  const int first_divisor_;
};

}  // namespace nos::cpu::native
