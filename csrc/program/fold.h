// Owns Fold: how the elements of a tensor become one number.
#pragma once
#include <cstdint>

namespace nos {

enum class Fold : uint8_t {
  sum,      // the sum of values
  dot,      // the sum of products of two values
  max_abs,  // the largest magnitude
};

}  // namespace nos
