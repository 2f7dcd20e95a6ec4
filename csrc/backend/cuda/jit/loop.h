// Owns the loop that every compiled rule shares: groups of four elements are loaded, go through the rule, and are
// stored. The rule itself is a struct that source.cc writes. NVRTC gets this file as text (cmake/NosJit.cmake); the
// host-run tests compile the same text with g++.
#pragma once
#include "../../../ops/math.h"
#include "../../../ops/philox.h"
#include "../common/block.h"
#include "../common/memory.h"

namespace nos::cuda::jit {

// Makes one of the rule's random draws for four neighbouring elements.
NOS_HD void draw(bool normal, uint64_t seed, uint32_t step, uint32_t tensor, uint32_t site, uint64_t q,
                 float (&out)[4]) {
  const philox::Words words = philox::element_words(seed, step, tensor, site, q);
  if (normal)
    philox::normal4(words, out);
  else
    philox::uniform4(words, out);
}

// Rule has Value, the type that it computes in; kSlots, and of each slot kDtype, kRead and kWritten; kDraws, the number
// of its draws; the scalars that it reads, which its constructor takes from a row; draws(), which makes all draws of
// four elements; and operator() on the slots of one element.
//
// A thread takes kGroups groups of four neighbouring elements at a time. Which thread computes an element is of no
// consequence: draws are keyed by the element.
template <class Rule, uint32_t kThreads, uint32_t kGroups>
struct Block {
  using T = typename Rule::Value;
  using Values = T[Rule::kSlots][kGroups][4];
  static constexpr uint32_t kStride = 4 * kThreads, kTile = kStride * kGroups;

  const Rule rule;
  char* memory[Rule::kSlots];  // at the chunk's first element
  const bool aligned;
  const uint32_t count;  // elements of the chunk

  // Moves the slots of a tile between memory and x. whole: every group of the tile is there and aligned, which spares a
  // test per access.
  template <bool loads, bool whole, uint32_t s = 0>
  NOS_HD void move(uint32_t first, Values& x) const {
    if constexpr (loads ? Rule::kRead[s] : Rule::kWritten[s]) {
      constexpr uint32_t dtype = Rule::kDtype[s];
      char* const at = global(memory[s]) + first * static_cast<int64_t>(size_of_dtype(dtype));
#pragma unroll
      for (uint32_t group = 0; group < kGroups; ++group) {
        T(&four)[4] = x[s][group];
        const uint32_t begin = first + kStride * group;
        const uint32_t left = whole ? 4 : begin < count ? count - begin : 0;
        if (whole || (left >= 4 && aligned)) {
          if constexpr (loads)
            load4<T, true>(at, dtype, kStride * group, four);
          else
            store4<T, true>(at, dtype, kStride * group, four);
        } else {
          for (uint32_t lane = 0; lane < 4; ++lane) {
            if constexpr (loads)
              four[lane] = lane < left ? load1<T, true>(at, dtype, kStride * group + lane) : T(0);
            else if (lane < left)
              store1<T, true>(at, dtype, kStride * group + lane, four[lane]);
          }
        }
      }
    }
    if constexpr (s + 1 < Rule::kSlots) move<loads, whole, s + 1>(first, x);
  }

  template <class Draws>
  NOS_HD void run(uint32_t thread, T factor, const Draws& draws) const {
    for (uint32_t tile = 0; tile < count; tile += kTile) {
      const bool whole = aligned && count - tile >= kTile;
      const uint32_t first = tile + 4 * thread;
      Values x;
      if (whole)
        move<true, true>(first, x);
      else
        move<true, false>(first, x);
#pragma unroll
      for (uint32_t group = 0; group < kGroups; ++group) {
        float u[Rule::kDraws ? Rule::kDraws : 1][4];
        draws(first + kStride * group, u);
#pragma unroll
        for (uint32_t lane = 0; lane < 4; ++lane) rule(factor, x, u, group, lane);
      }
      if (whole)
        move<false, true>(first, x);
      else
        move<false, false>(first, x);
    }
  }
};

template <class Rule, uint32_t kThreads, uint32_t kGroups>
NOS_HD void run_block(const Launch& launch, uint32_t number, uint32_t thread) {
  using T = typename Rule::Value;
  const Work<T> work = work_of<T>(launch, number);
  Block<Rule, kThreads, kGroups> block{
      Rule(work.scalars), {}, work.tensor.aligned != 0, static_cast<uint32_t>(work.count(launch.chunk_elements))};
#pragma unroll
  for (uint32_t s = 0; s < Rule::kSlots; ++s) block.memory[s] = work.memory(s, Rule::kDtype[s]);
  const StepHead head = work.head;
  const uint32_t index = work.tensor.index;
  block.run(thread, static_cast<T>(head.factor), [&](uint32_t at, float (*u)[4]) {
    block.rule.draws(work.row.seed, head.step, index, static_cast<uint64_t>(work.chunk.begin + at) >> 2, u);
  });
}

}  // namespace nos::cuda::jit
