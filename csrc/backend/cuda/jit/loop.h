// Owns the loop that every compiled rule shares: tables in, groups of four elements through the rule, results out. The
// rule itself is a struct made by source.cc. NVRTC gets this file as text (cmake/NosJit.cmake); the host-run tests
// compile the same text with g++.
#pragma once
#include "../../../ops/convert.h"
#include "../../../ops/math.h"
#include "../../../ops/philox.h"
#include "../tables.h"

namespace nos::cuda::jit {

template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T at[4];
};

// Storage of one slot: what lies in memory, and the way to the compute type and back.
template <uint32_t dtype>
struct Storage;
template <>
struct Storage<kF32> {
  using Memory = float;
  static NOS_HD float load(float x) { return x; }
  static NOS_HD float store(float x) { return x; }
};
template <>
struct Storage<kF64> {
  using Memory = double;
  static NOS_HD double load(double x) { return x; }
  static NOS_HD double store(double x) { return x; }
};
template <>
struct Storage<kBF16> {
  using Memory = uint16_t;
  static NOS_HD float load(uint16_t x) { return math::bf16_to_f32(x); }
  static NOS_HD uint16_t store(float x) { return math::f32_to_bf16(x); }
};
template <>
struct Storage<kF16> {
  using Memory = uint16_t;
  static NOS_HD float load(uint16_t x) { return math::f16_to_f32(x); }
  static NOS_HD uint16_t store(float x) { return math::f32_to_f16(x); }
};

// The four elements at `at`, of which the first `count` exist. vector: they are one aligned access.
template <uint32_t dtype, class T>
NOS_HD void load(const void* at, bool vector, uint32_t count, T (&out)[4]) {
  using M = typename Storage<dtype>::Memory;
  Four<M> in = {};
  if (vector) {
    in = *static_cast<const Four<M>*>(at);
  } else {
    for (uint32_t lane = 0; lane < 4; ++lane)
      if (lane < count) in.at[lane] = static_cast<const M*>(at)[lane];
  }
  for (uint32_t lane = 0; lane < 4; ++lane) out[lane] = Storage<dtype>::load(in.at[lane]);
}

template <uint32_t dtype, class T>
NOS_HD void store(void* at, bool vector, uint32_t count, const T (&in)[4]) {
  using M = typename Storage<dtype>::Memory;
  Four<M> out;
  for (uint32_t lane = 0; lane < 4; ++lane) out.at[lane] = Storage<dtype>::store(in[lane]);
  if (vector) {
    *static_cast<Four<M>*>(at) = out;
  } else {
    for (uint32_t lane = 0; lane < 4; ++lane)
      if (lane < count) static_cast<M*>(at)[lane] = out.at[lane];
  }
}

// One of the rule's random draws for four neighbouring elements.
NOS_HD void draw(bool normal, uint64_t seed, uint32_t step, uint32_t tensor, uint32_t site, uint64_t q,
                 float (&out)[4]) {
  const philox::Words words = philox::element_words(seed, step, tensor, site, q);
  if (normal)
    philox::normal4(words, out);
  else
    philox::uniform4(words, out);
}

// Tells the device compiler that a pointer is to global memory: a generic load takes a detour.
template <class M>
NOS_HD M* global(void* p) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(p));
#endif
  return static_cast<M*>(p);
}

// Rule: Value, the compute type; kSlots, and of each slot kDtype, kRead, kWritten; kDraws; the scalars it reads, taken
// from a row by its constructor; draws(); operator() on the slots of one element.
//
// A thread takes kGroups groups of four neighbouring elements at a time. Which thread computes an element is of no
// consequence: draws are keyed by the element.
template <class Rule, uint32_t kThreads, uint32_t kGroups>
struct Block {
  using T = typename Rule::Value;
  using Values = T[Rule::kSlots][kGroups][4];
  static constexpr uint32_t kStride = 4 * kThreads, kTile = kStride * kGroups;

  const Rule rule;
  void* memory[Rule::kSlots];  // of the chunk
  const bool aligned;
  const uint32_t count;  // elements of the chunk

  // whole: every group of the tile is there and aligned, which spares a test per access.
  template <bool loads, bool whole, uint32_t s = 0>
  NOS_HD void move(uint32_t first, Values& x) const {
    if constexpr (loads ? Rule::kRead[s] : Rule::kWritten[s]) {
      constexpr uint32_t dtype = Rule::kDtype[s];
      auto* const at = global<typename Storage<dtype>::Memory>(memory[s]) + first;
#pragma unroll
      for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t begin = first + kStride * group;
        const uint32_t left = whole ? 4 : begin < count ? count - begin : 0;
        const bool vector = whole || (left >= 4 && aligned);
        if constexpr (loads)
          load<dtype>(at + kStride * group, vector, left, x[s][group]);
        else
          store<dtype>(at + kStride * group, vector, left, x[s][group]);
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
  const ChunkRec chunk = launch.chunks[number];
  const TensorRec& tensor = launch.tensors[chunk.tensor];
  const unsigned char* const step_block = launch.step_block ? launch.step_block : launch.inline_block;
  const StepHead head = *reinterpret_cast<const StepHead*>(step_block);
  const auto* const rows = reinterpret_cast<const RowHead*>(step_block + sizeof(StepHead));
  const RowHead row = rows[tensor.row + chunk.slice];
  const T* const scalars = reinterpret_cast<const T*>(rows + launch.rows) + row.first;

  const int64_t left = tensor.numel - chunk.begin;
  const uint32_t count = left < launch.chunk_elements ? static_cast<uint32_t>(left) : launch.chunk_elements;
  Block<Rule, kThreads, kGroups> block{Rule(scalars), {}, tensor.aligned != 0, count};
  const int64_t origin = static_cast<int64_t>(chunk.slice) * tensor.numel + chunk.begin;
#pragma unroll
  for (uint32_t s = 0; s < Rule::kSlots; ++s) {
    const uint32_t dtype = Rule::kDtype[s];
    const int64_t size = dtype == kF64 ? 8 : dtype == kF32 ? 4 : 2;
    block.memory[s] = static_cast<unsigned char*>(tensor.data[s]) + size * origin;
  }
  const uint32_t index = tensor.index;
  block.run(thread, static_cast<T>(head.factor), [&](uint32_t at, float (*u)[4]) {
    block.rule.draws(row.seed, head.step, index, static_cast<uint64_t>(chunk.begin + at) >> 2, u);
  });
}

}  // namespace nos::cuda::jit
