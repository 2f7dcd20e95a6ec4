// Owns the table of block kernels. Their one source, kernels.cc, is compiled once per instruction set. Every build
// gives the same bits (docs/numerics.md), so the choice between them is about speed only.
#pragma once
#include <cstdint>
#include <vector>

#include "../../ops/op.h"
#include "../../ops/philox.h"
#include "../../plan/tensor_ref.h"
#include "../../program/fold.h"

namespace nos::cpu {

// dst[i] = op(a[i], b[i], c[i]) for i < n. dst may be one of the operands, but may not overlap them otherwise. A scalar
// operand points to its one value.
template <class T>
using MapFn = void (*)(T* dst, const T* a, const T* b, const T* c, int64_t n);

// Where in the random sequence a block starts; element is a multiple of 4 (philox.h).
struct DrawKey {
  uint64_t seed;
  uint64_t element;
  uint32_t step, tensor, site;
};

// What a block of at most kMostRounded elements needs for stochastic rounding: the keys of the blocks of philox.h in
// which it lies, and the place of its first element in the first of them.
inline constexpr int64_t kMostRounded = 1024;
struct RoundingKeys {
  philox::RoundingKey of[kMostRounded / philox::kRoundingBlock + 1];
  uint32_t lane;
};

// dst[i] = op(a[i], parameter) with a draw of its own for every i. dst may be a. An op whose only operand is the
// parameter does not read a.
template <class T>
using RandomFn = void (*)(T* dst, const T* a, T parameter, DrawKey key, int64_t n);

// Elements whose sum is one number: the unit of all reductions. The numbers of a tensor's units are added up in the
// same way, 256 at a time, until one is left. So the order of a sum depends on the tensor's size alone.
inline constexpr int64_t kFoldUnit = 256;

// dst[i] = the sum of unit i of a, of the products a * b, or the largest magnitude in it. The last unit may be a part
// of one. dst may be a, where that holds doubles.
template <class T>
using FoldFn = void (*)(double* dst, const T* a, const T* b, int64_t n);

template <class T>
struct KernelSet {
  MapFn<T> map[kNumOps][8];     // [op][mask of the scalar operands]; null for ops that are not element-wise
  RandomFn<T> random[kNumOps];  // [op]; null for ops that are not random
  FoldFn<T> fold[3];            // [Fold]
  void (*copy)(T* dst, const T* src, int64_t n);
  void (*fill)(T* dst, T value, int64_t n);
  void (*scale)(T* dst, const T* src, T factor, int64_t n);
};

struct Kernels {
  KernelSet<float> f32;
  KernelSet<double> f64;
  void (*from_bf16)(float* dst, const uint16_t* src, int64_t n);
  void (*from_f16)(float* dst, const uint16_t* src, int64_t n);
  void (*to_bf16)(uint16_t* dst, const float* src, int64_t n);
  void (*to_f16)(uint16_t* dst, const float* src, int64_t n);
  // These round stochastically, at most kMostRounded elements.
  void (*to_bf16_stochastic)(uint16_t* dst, const float* src, const RoundingKeys& keys, int64_t n);
  void (*to_f16_stochastic)(uint16_t* dst, const float* src, const RoundingKeys& keys, int64_t n);
  // Codes of quantized states (ops/convert.h), from the beginning of a block of kScaleBlock elements on. Numbers are
  // stored in two steps, first the scales of their blocks and then the codes.
  void (*from_i8)(float* dst, const int8_t* src, const float* scales, int64_t n);
  void (*from_u8)(float* dst, const uint8_t* src, const float* scales, int64_t n);
  void (*scales_i8)(float* scales, const float* src, int64_t n);
  void (*scales_u8)(float* scales, const float* src, int64_t n);
  void (*to_i8)(int8_t* dst, const float* scales, const float* src, int64_t n);
  void (*to_u8)(uint8_t* dst, const float* scales, const float* src, int64_t n);
  void (*to_i8_stochastic)(int8_t* dst, const float* scales, const float* src, const RoundingKeys& keys, int64_t n);
  void (*to_u8_stochastic)(uint8_t* dst, const float* scales, const float* src, const RoundingKeys& keys, int64_t n);
};

struct Isa {
  const char* name;
  const Kernels* kernels;
};

const Isa& isa();                        // the one in use: the best that this machine runs, or what NOS_ISA names
std::vector<std::string> usable_isas();  // those that this build has and this machine runs, the best last

}  // namespace nos::cpu
