// Owns on which device a call runs: that of the first parameter that has a gradient. make_plan holds the others to it.
// What has no gradient may be anywhere.
#pragma once
#include <algorithm>
#include <span>

#include "tensor_ref.h"

namespace nos {

// The number of that parameter, or 0 where none has a gradient.
inline size_t first_present(const TensorList& grads) {
  const auto found = std::ranges::find_if(grads.tensors, &TensorRef::present);
  return found == grads.tensors.end() ? 0 : static_cast<size_t>(found - grads.tensors.begin());
}

// `lists` begins with the parameters and the gradients.
inline Device device_of_call(std::span<const TensorList> lists) {
  const auto& params = lists[0].tensors;
  const size_t i = first_present(lists[1]);
  return i < params.size() ? params[i].device : Device{};
}

}  // namespace nos
