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

// Puts the scales of n elements where fused loops find them: that of a block as many bytes from dst as its first
// element is elements from the first one.
inline void spread_scales(float* dst, const Stored& from, int64_t n) {
  for (int64_t at = 0; at < n; at += kScaleBlock)
    dst[at / static_cast<int64_t>(sizeof(float))] = from.scales[at / kScaleBlock];
}

// Writes the scales of n elements, if the slot has such. It comes before the two below: they only read the scales.
inline void find_scales(const Kernels& kernels, const Stored& to, const float* src, int64_t n) {
  if (to.dtype == DType::i8) kernels.scales_i8(to.scales, src, n);
  if (to.dtype == DType::u8) kernels.scales_u8(to.scales, src, n);
}

// Writes n elements of a slot that is not stored in fp32, rounded to the nearest.
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

// What the next function needs for n elements of output number `output`. key.element is the number of the first one in
// its slice.
inline RoundingKeys rounding_keys(const DrawKey& key, uint32_t output, int64_t n) {
  constexpr uint64_t kUnit = philox::kRoundingBlock;
  RoundingKeys out;
  out.lane = static_cast<uint32_t>(key.element % kUnit);
  for (uint64_t i = 0; i * kUnit < out.lane + static_cast<uint64_t>(n); ++i)
    out.of[i] = philox::rounding_key(key.seed, key.step, key.tensor, output, key.element + i * kUnit);
  return out;
}

// The same, rounded stochastically, at most kMostRounded elements.
inline void narrow_stochastically(const Kernels& kernels, const Stored& to, const float* src, const RoundingKeys& keys,
                                  int64_t n) {
  switch (to.dtype) {
    case DType::bf16:
      return kernels.to_bf16_stochastic(reinterpret_cast<uint16_t*>(to.data), src, keys, n);
    case DType::f16:
      return kernels.to_f16_stochastic(reinterpret_cast<uint16_t*>(to.data), src, keys, n);
    case DType::i8:
      return kernels.to_i8_stochastic(reinterpret_cast<int8_t*>(to.data), to.scales, src, keys, n);
    case DType::u8:
      return kernels.to_u8_stochastic(reinterpret_cast<uint8_t*>(to.data), to.scales, src, keys, n);
    case DType::f32:
    case DType::f64:
      return;
  }
}

}  // namespace nos::cpu
