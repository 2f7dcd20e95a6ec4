// Owns KernelCall: one block kernel and its operands, the same for every block of a tensor. The interpreter runs
// nothing but such calls; the native tier runs them between its fused loops.
#pragma once
#include <cstdint>

#include "../../program/passes.h"
#include "kernels.h"

namespace nos::cpu {

inline constexpr size_t kLine = 64;  // bytes of a cache line

// Where an operand or a result lies inside a block. A place below num_slots is the caller's tensor of that slot (p, g,
// states), a place from num_slots on is a temporary. In KernelCall::arg a scalar is kScalarPlace + its id.
inline constexpr uint16_t kScalarPlace = 0x8000;

struct KernelCall {
  enum class Kind : uint8_t { map, random, fold, copy, fill };
  Kind kind;
  Op op;            // for the kinds map, random and fold
  uint8_t scalars;  // bit k: operand k is a scalar
  uint16_t site;    // for the kind random; for the kind fold, which of the pass it is
  uint16_t dst;
  uint16_t arg[3];
};

// Where the reductions of a block go: its first unit of fold k is at first + k * stride. Unused without reductions.
struct FoldTarget {
  double* first = nullptr;
  int64_t stride = 0;
  FoldTarget at(int64_t element) const { return {first + element / kFoldUnit, stride}; }
};

// Calls the kernel for n elements of a block. key.element, where the block starts, is a multiple of 4. `base` holds the
// address of each place.
template <class T>
void run_call(const KernelCall& call, T* const* base, const T* scalars, DrawKey key, int64_t n,
              const KernelSet<T>& set, FoldTarget folds) {
  const auto operand = [&](int k) -> const T* {
    return call.scalars >> k & 1 ? scalars + (call.arg[k] - kScalarPlace) : base[call.arg[k]];
  };
  T* dst = base[call.dst];
  switch (call.kind) {
    case KernelCall::Kind::map:
      set.map[static_cast<size_t>(call.op)][call.scalars](dst, operand(0), operand(1), operand(2), n);
      break;
    case KernelCall::Kind::fold: {
      const T* a = operand(0);
      set.fold[static_cast<size_t>(fold_of(call.op))](folds.first + call.site * folds.stride, a,
                                                      info(call.op).arity > 1 ? operand(1) : a, n);
      break;
    }
    case KernelCall::Kind::copy:
      set.copy(dst, operand(0), n);
      break;
    case KernelCall::Kind::fill:
      set.fill(dst, *operand(0), n);
      break;
    case KernelCall::Kind::random: {
      key.site = call.site;
      const int parameter = info(call.op).arity - 1;
      const T* a = parameter ? operand(0) : nullptr;
      if (parameter && call.scalars & 1) {  // the operand may be a scalar that is dropped element by element
        set.fill(dst, *a, n);
        a = dst;
      }
      set.random[static_cast<size_t>(call.op)](dst, a, *operand(parameter), key, n);
    }
  }
}

}  // namespace nos::cpu
