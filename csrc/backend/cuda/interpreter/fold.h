// Owns the sum of one unit of a reduction, kFoldUnit consecutive elements, by the lanes of a warp: a balanced tree in
// double, in which the first step adds element i + 128 to element i, the next one i + 64, and the last one the two that
// are left. It is the tree of every back-end, so all have the same bits.
//
// Lane x holds elements 4 x .. 4 x + 3 and 128 + 4 x .. 128 + 4 x + 3. The first step is a thread's own. Then two lanes
// share the work: each sends the half that the other one goes on with, until every lane has one number.
#pragma once
#include "../../../ops/math.h"
#include "../../../program/fold.h"

namespace nos::cuda {

inline constexpr int kFoldElements = 8;  // of a unit that a lane holds
inline constexpr int kFoldUnit = 32 * kFoldElements;

// What a warp reads of a tensor for a reduction, and how two numbers become one.
template <Fold F, class T>
NOS_HD double fold_term(T a, T b) {
  const double x = static_cast<double>(a);
  if constexpr (F == Fold::sum)
    return x;
  else if constexpr (F == Fold::dot)
    return x * static_cast<double>(b);
  else
    return math::abs<double>(x);
}
template <Fold F>
NOS_HD double fold_join(double a, double b) {
  if constexpr (F == Fold::max_abs)
    return a >= b || a != a ? a : b;
  else
    return a + b;
}

// How many numbers a reduction of so many elements has in memory: one per unit, then one per kFoldUnit of these, and so
// on until one is left, which is the last.
NOS_HD int64_t fold_units(int64_t elements) { return (elements + kFoldUnit - 1) / kFoldUnit; }
NOS_HD int64_t fold_numbers(int64_t elements) {
  int64_t level = fold_units(elements), out = level;
  while (level > 1) out += level = fold_units(level);
  return out;
}

// y: what the first step gave. A V is the number of one lane on the device, and of all lanes where they are run in
// step. lanes.exchange(v, mask) is the v of the lane whose number differs in the bits of the mask; lanes.choose(mask,
// a, b) is a in the lanes whose number has the bit, and else b; lanes.join(a, b) joins two numbers.
template <class Lanes, class V>
NOS_HD V fold_lanes(const Lanes& lanes, const V (&y)[4]) {
  V two[2];
  for (int e = 0; e < 2; ++e)  // 64: elements 2 and 3 go on in the upper half of the warp
    two[e] = lanes.join(lanes.choose(16, y[e + 2], y[e]), lanes.exchange(lanes.choose(16, y[e], y[e + 2]), 16));
  // 32: elements 1 and 3 go on where the lane's number has the bit 8
  V one = lanes.join(lanes.choose(8, two[1], two[0]), lanes.exchange(lanes.choose(8, two[0], two[1]), 8));
  one = lanes.join(one, lanes.exchange(one, 4));   // 16
  one = lanes.join(one, lanes.exchange(one, 2));   // 8
  one = lanes.join(one, lanes.exchange(one, 1));   // 4
  one = lanes.join(one, lanes.exchange(one, 16));  // 2
  return lanes.join(one, lanes.exchange(one, 8));  // 1
}

}  // namespace nos::cuda
