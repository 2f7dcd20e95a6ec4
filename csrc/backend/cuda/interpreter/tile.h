// Owns what the threads of a block share, which elements of a tile a thread holds, and the ways of a slot's elements
// that are not those of common/memory.h: reading them where they may be codes, rounding them stochastically, and making
// codes of them.
#pragma once
#include "../../../ops/math.h"
#include "../../../ops/philox.h"
#include "../common/memory.h"
#include "../common/unroll.h"
#include "codes.h"
#include "fold.h"
#include "isa.h"

namespace nos::cuda {

// What the threads of a block share, besides the code and the overflow slots.
template <class T>
struct Shared {
  char* data[kSlots];  // at the chunk's first element
  int64_t begin;       // where the chunk begins in its slice
  uint64_t seed;
  T factor;
  int count;  // elements of the chunk
  uint32_t dtypes, aligned, reads, writes, step, index, rounding;
  double* sums;           // of the first reduction, at the chunk's first unit; only where there are reductions
  int64_t next_sum;       // from one reduction's sums to those of the next
  float* scales[kSlots];  // of the slots in codes, at the chunk's first block; only where there may be such
};
static_assert(philox::kRoundingBlock % kFoldUnit == 0, "a warp rounds with one key");

// The dtype of a slot. A kernel without codes reads two bits of it.
template <bool Codes>
NOS_HD uint32_t stored_as(uint32_t dtypes, int slot) {
  return Codes ? any_dtype_of(dtypes, slot) : dtype_of(dtypes, slot);
}

// Says which elements of a tile a thread holds.
struct Quads {
  int first;   // where quad 0 begins in the chunk
  int stride;  // from quad to quad
  NOS_HD int at(int e) const { return first + (e >> 2) * stride + (e & 3); }
};

// For every element that a thread holds.
#define NOS_EACH NOS_UNROLL for (int e = 0; e < E; ++e)

// Element i of a slot that may be stored in codes, counted from the chunk's first one.
NOS_HD float load_any(const Shared<float>& sm, int slot, uint32_t dtype, int i) {
  if (!is_code(dtype)) return load1<float, true>(sm.data[slot], dtype, i);
  return number_of(dtype, static_cast<uint8_t>(sm.data[slot][i]), sm.scales[slot][i / kFoldUnit]);
}

// The number of the rule's output that goes into a slot.
NOS_HD uint32_t output_of(int slot) { return slot == 0 ? 0 : static_cast<uint32_t>(slot - 1); }

// Whether results in half precision are rounded stochastically in this slot.
template <class T>
NOS_HD bool is_stochastic(const Shared<T>& sm, int slot) {
  return sm.rounding >> (slot != 0 ? 1 : 0) & 1;
}

// Stores the elements of one slot in half precision. Each is rounded stochastically with random bits of its own.
template <int E>
NOS_HD void store_stochastic(const Shared<float>& sm, int slot, Quads quads, const float (&x)[E]) {
  const bool brain = dtype_of(sm.dtypes, slot) == kBF16;
  auto* to = reinterpret_cast<uint16_t*>(sm.data[slot]);
  NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
    const auto element = static_cast<uint64_t>(sm.begin + quads.first + j * quads.stride);
    const philox::RoundingKey key = philox::rounding_key(sm.seed, sm.step, sm.index, output_of(slot), element);
    NOS_UNROLL for (int e = 4 * j; e < 4 * j + 4; ++e) {
      const uint32_t bits =
          philox::rounding_word(key, static_cast<uint32_t>(element + (e & 3)) % philox::kRoundingBlock);
      if (quads.at(e) < sm.count)
        to[quads.at(e)] = brain ? math::f32_to_bf16_stochastic(x[e], bits) : math::f32_to_f16_stochastic(x[e], bits);
    }
  }
}

// Stores the elements of one slot in codes. A warp holds a block, and its lanes meet here. Elements past the end become
// 0.
template <int E, class Context>
NOS_HD void store_codes(const Context& ctx, const Shared<float>& sm, int slot, Quads quads, float (&x)[E]) {
  const bool is_signed = any_dtype_of(sm.dtypes, slot) == kI8;
  uint32_t mine = 0;
  NOS_EACH {
    if (quads.at(e) >= sm.count) x[e] = 0.0f;
    const uint32_t size = math::size_bits(x[e], is_signed);
    mine = size > mine ? size : mine;
  }
  ctx.with_largest(mine, [&sm, slot, quads, x, is_signed](uint32_t largest) {
    const int32_t largest_code = is_signed ? math::kLargestI8 : math::kLargestU8;
    const float scale = math::scale_of(largest, largest_code);
    const bool has_codes = scale > 0.0f;
    const float inverse = divide(1.0f, has_codes ? scale : 1.0f);
    const auto element = static_cast<uint64_t>(sm.begin + quads.first);
    const philox::RoundingKey key = philox::rounding_key(sm.seed, sm.step, sm.index, output_of(slot), element);
    const auto lane = static_cast<uint32_t>(element) % philox::kRoundingBlock;
    const bool stochastic = is_stochastic(sm, slot);
    if (quads.first % kFoldUnit == 0) sm.scales[slot][quads.first / kFoldUnit] = scale;
    NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
      const int first = quads.first + j * quads.stride, there = sm.count - first;
      uint32_t word = 0;
      NOS_UNROLL for (int e = 0; e < 4; ++e) {
        const float number = has_codes ? x[4 * j + e] : 0.0f;
        const uint32_t draw = philox::rounding_word(key, lane + static_cast<uint32_t>(j * quads.stride + e));
        const float u = stochastic ? philox::rounding_part(draw) : 0.5f;
        const float size = is_signed ? math::abs<float>(number) : number;
        const int32_t code = math::to_code(size, inverse, u, largest_code);
        word |= (static_cast<uint32_t>(is_signed && number < 0.0f ? -code : code) & 0xffu) << 8 * e;
      }
      char* const to = global(sm.data[slot]) + first;
      if (sm.aligned && there >= 4) {
        store_word(to, word);
      } else {
        NOS_UNROLL for (int e = 0; e < 4; ++e) if (e < there) to[e] = static_cast<char>(word >> 8 * e);
      }
    }
  });
}

}  // namespace nos::cuda
