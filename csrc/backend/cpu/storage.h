// Owns the way between how a slot is stored and the fp32 numbers that a block of it is computed in. Both tiers go it.
#pragma once
#include <cstdint>

#include "../../plan/plan.h"
#include "../../plan/step.h"
#include "kernels.h"

namespace nos::cpu {

// The elements of a slot from one on, as they are stored. That of a quantized slot is the first one of a block.
struct Stored {
  DType dtype;
  char* data;
  float* scales;  // null where it is not quantized
};

// element: number in the whole tensor, all slices counted.
inline Stored stored(const PlannedTensor& t, int slot, int64_t element) {
  const auto s = static_cast<size_t>(slot);
  Stored out{t.dtype[s], static_cast<char*>(t.data[s]) + element * size_of(t.dtype[s]), nullptr};
  if (is_quantized(out.dtype)) out.scales = t.scales[s - bytecode::kFirstState] + element / kScaleBlock;
  return out;
}

// The number of the rule's output that goes into a slot: 0 is the parameter, 1 and up are the states.
inline uint32_t output_of_slot(int slot) { return slot == bytecode::kP ? 0 : static_cast<uint32_t>(slot - 1); }

// Whether results that go into a slot are rounded stochastically. Those in fp32 and double never are.
inline bool is_stochastic(Rounding rounding, int slot, DType dtype) {
  return (is_half(dtype) || is_quantized(dtype)) && nos::is_stochastic(rounding, slot != bytecode::kP);
}

// Reads n elements of a slot that is not stored in fp32.
inline void widen(const Kernels& kernels, float* dst, const Stored& from, int64_t n) {
  switch (from.dtype) {
    case DType::bf16:
      return kernels.from_bf16(dst, reinterpret_cast<const uint16_t*>(from.data), n);
    case DType::f16:
      return kernels.from_f16(dst, reinterpret_cast<const uint16_t*>(from.data), n);
    case DType::i8:
      return kernels.from_i8(dst, reinterpret_cast<const int8_t*>(from.data), from.scales, n);
    case DType::u8:
      return kernels.from_u8(dst, reinterpret_cast<const uint8_t*>(from.data), from.scales, n);
    case DType::f32:
    case DType::f64:
      return;  // nothing to do: they are used where they lie
  }
}

// Writes n elements of the same, rounded to the nearest.
inline void narrow(const Kernels& kernels, const Stored& to, const float* src, int64_t n) {
  switch (to.dtype) {
    case DType::bf16:
      return kernels.to_bf16(reinterpret_cast<uint16_t*>(to.data), src, n);
    case DType::f16:
      return kernels.to_f16(reinterpret_cast<uint16_t*>(to.data), src, n);
    case DType::i8:
      return kernels.to_i8(reinterpret_cast<int8_t*>(to.data), to.scales, src, n);
    case DType::u8:
      return kernels.to_u8(reinterpret_cast<uint8_t*>(to.data), to.scales, src, n);
    case DType::f32:
    case DType::f64:
      return;
  }
}

// The same, rounded stochastically. key.element is the number of the first element in its slice.
inline void narrow_stochastically(const Kernels& kernels, const Stored& to, const float* src, const DrawKey& key,
                                  uint32_t output, int64_t n) {
  switch (to.dtype) {
    case DType::bf16:
      return kernels.to_bf16_stochastic(reinterpret_cast<uint16_t*>(to.data), src, key, output, n);
    case DType::f16:
      return kernels.to_f16_stochastic(reinterpret_cast<uint16_t*>(to.data), src, key, output, n);
    case DType::i8:
      return kernels.to_i8_stochastic(reinterpret_cast<int8_t*>(to.data), to.scales, src, key, output, n);
    case DType::u8:
      return kernels.to_u8_stochastic(reinterpret_cast<uint8_t*>(to.data), to.scales, src, key, output, n);
    case DType::f32:
    case DType::f64:
      return;
  }
}

}  // namespace nos::cpu
