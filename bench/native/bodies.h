// Owns what one element of each pass does: the hand-fused update of every rule of bench/rules.py, and the streams that
// set the limit. Scalars come in the order of the rule's `scalars` there.
//
// The arithmetic is the engine's, operation by operation, with the functions of csrc/ops/math.h: a hand-fused loop and
// the interpreter return the same bits (tests/bench asserts it), so their distance is the price of interpretation
// alone.
#pragma once
#include "../../csrc/ops/math.h"

namespace nos::bench {

template <class T>
NOS_HD T blend(T a, T x, T b, T y) {
  return a * x + b * y;
}

// The exponent of a pow in a loop. GCC 12 hoists pow's tests of an invariant exponent as scalar truth values and then
// does not vectorise the loop; it does when the exponent seems to depend on the base. The bits stay those of `value`.
class Exponent {
 public:
  explicit Exponent(float value) : bits_(bits_as<uint32_t>(value)) {
    volatile uint32_t nothing = 0;
    mask_ = nothing;
  }
  NOS_HD float of(float base) const { return bits_as<float>(bits_ | (bits_as<uint32_t>(base) & mask_)); }

 private:
  uint32_t bits_, mask_;
};

// ---- limits: every array touched as often as the rule does, one operation for each array that is written ------------
// k = 0 at run time, so the tensors keep their values however often the stream runs.
struct Stream1 {
  static constexpr int kStates = 0;
  float k;
  explicit Stream1(const float* s) : k(s[0]) {}
  NOS_HD void operator()(float& p, float g) const { p = fused(k, g, p); }
};
struct Stream2 {
  static constexpr int kStates = 1;
  float k;
  explicit Stream2(const float* s) : k(s[0]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    p = fused(k, g, p);
    m = fused(k, g, m);
  }
};
struct Stream3 {
  static constexpr int kStates = 2;
  float k;
  explicit Stream3(const float* s) : k(s[0]) {}
  NOS_HD void operator()(float& p, float g, float& m, float& v) const {
    p = fused(k, g, p);
    m = fused(k, g, m);
    v = fused(k, g, v);
  }
};

// ---- rules
// -----------------------------------------------------------------------------------------------------------
struct Sgd {
  static constexpr int kStates = 0;
  float lr;
  explicit Sgd(const float* s) : lr(s[0]) {}
  NOS_HD void operator()(float& p, float g) const { p = p - lr * g; }
};

struct Momentum {
  static constexpr int kStates = 1;
  float lr, beta;
  explicit Momentum(const float* s) : lr(s[0]), beta(s[1]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    m = beta * m + g;
    p = p - lr * m;
  }
};

// decay = 1 makes AdamW Adam: p * 1 is p, and the compiler drops it.
template <bool Decay>
struct Adam {
  static constexpr int kStates = 2;
  float step, beta1, rest1, beta2, rest2, root, eps, decay;
  explicit Adam(const float* s)
      : step(s[0]),
        beta1(s[1]),
        rest1(s[2]),
        beta2(s[3]),
        rest2(s[4]),
        root(s[5]),
        eps(s[6]),
        decay(Decay ? s[7] : 1) {}
  NOS_HD void operator()(float& p, float g, float& m, float& v) const {
    m = blend(beta1, m, rest1, g);
    v = blend(beta2, v, rest2, g * g);
    const float kept = Decay ? p * decay : p;
    p = kept - step * m / (math::sqrt(v) / root + eps);
  }
};

struct Lion {
  static constexpr int kStates = 1;
  float lr, keep, beta1, rest1, beta2, rest2;
  explicit Lion(const float* s) : lr(s[0]), keep(s[1]), beta1(s[2]), rest1(s[3]), beta2(s[4]), rest2(s[5]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    p = p * keep - lr * math::sign(blend(beta1, m, rest1, g));
    m = blend(beta2, m, rest2, g);
  }
};

struct RmsProp {
  static constexpr int kStates = 1;
  float lr, alpha, rest, eps;
  explicit RmsProp(const float* s) : lr(s[0]), alpha(s[1]), rest(s[2]), eps(s[3]) {}
  NOS_HD void operator()(float& p, float g, float& v) const {
    v = blend(alpha, v, rest, g * g);
    p = p - lr * g / (math::sqrt(v) + eps);
  }
};

struct PowerSign {
  static constexpr int kStates = 1;
  float lr, beta, rest, power;
  explicit PowerSign(const float* s) : lr(s[0]), beta(s[1]), rest(s[2]), power(s[3]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    m = blend(beta, m, rest, g);
    p = p - lr * math::exp(power * math::sign(g) * math::sign(m)) * g;
  }
};

// The same with exp of a product of signs as what it is: one of three numbers (a NaN stays one).
struct PowerSignSelect {
  static constexpr int kStates = 1;
  float beta, rest, agree, differ, neither;
  explicit PowerSignSelect(const float* s)
      : beta(s[1]), rest(s[2]), agree(s[0] * math::exp(s[3])), differ(s[0] * math::exp(-s[3])), neither(s[0]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    m = blend(beta, m, rest, g);
    const float s = math::sign(g) * math::sign(m);
    float factor = s > 0.0f ? agree : neither;
    factor = s < 0.0f ? differ : factor;
    factor = s != s ? s : factor;
    p = p - factor * g;
  }
};

struct AddSign {
  static constexpr int kStates = 1;
  float lr, beta, rest, alpha;
  explicit AddSign(const float* s) : lr(s[0]), beta(s[1]), rest(s[2]), alpha(s[3]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    m = blend(beta, m, rest, g);
    p = p - lr * (alpha + math::sign(g) * math::sign(m)) * g;
  }
};

struct Random15 {
  static constexpr int kStates = 1;
  float lr, beta, rest, bound, eps;
  Exponent exponent;
  explicit Random15(const float* s) : lr(s[0]), beta(s[1]), rest(s[2]), bound(s[4]), eps(s[5]), exponent(s[3]) {}
  NOS_HD void operator()(float& p, float g, float& m) const {
    m = blend(beta, m, rest, g);
    const float a = math::abs(m);
    const float x =
        math::pow(a, exponent.of(a)) * math::exp(math::sign(g) * math::sign(m)) * math::clip(g, -bound, bound);
    p = p - lr * (x + math::log(g * g + eps) * math::sqrt(a));
  }
};

struct Random40 {
  static constexpr int kStates = 2;
  float lr, beta1, rest1, beta2, rest2, eps, small;
  Exponent exponent;
  explicit Random40(const float* s)
      : lr(s[0]), beta1(s[1]), rest1(s[2]), beta2(s[3]), rest2(s[4]), eps(s[5]), small(s[6]), exponent(s[7]) {}
  NOS_HD void operator()(float& p, float g, float& m, float& v) const {
    m = blend(beta1, m, rest1, g);
    v = blend(beta2, v, rest2, g * g);
    const float a = math::tanh(m) - math::clip(g, -small, small);
    const float b = math::exp(-math::abs(g)) * math::sign(m);
    const float c = math::sqrt(v + eps);
    const float d = g / c;
    const float h = math::log(1.0f + d * d);
    const float i = math::max(a * b, math::min(d, h));
    const float j = math::where(math::gt(g, p), i, h);
    const float k = j * math::pow(math::abs(p), exponent.of(p));
    const float l = math::rsqrt(1.0f + k * k);
    const float n = math::tanh(l * m / c);
    const float o = n - 0.5f * p * math::exp(-v);
    const float q = math::clip(o + b, -1.0f, 1.0f);
    p = p - lr * (q + a * h - math::sign(d) * i);
  }
};

}  // namespace nos::bench
