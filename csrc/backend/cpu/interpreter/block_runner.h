// Owns the interpreter's inner loop: the kernel calls of one program, block after block, over one chunk of one tensor.
#pragma once
#include <algorithm>
#include <type_traits>

#include "../engine.h"
#include "../kernel_call.h"
#include "../storage.h"
#include "lower.h"

namespace nos::cpu {

template <class T>
const KernelSet<T>& kernel_set(const Kernels& k) {
  if constexpr (std::is_same_v<T, float>)
    return k.f32;
  else
    return k.f64;
}

template <class T>
class BlockRunner {
 public:
  BlockRunner(const Lowered& code, const PlannedTensor& tensor, const T* scalars, const StepArgs& args, uint64_t seed,
              int block, char* memory)
      : code_(code),
        tensor_(tensor),
        scalars_(scalars),
        kernels_(*isa().kernels),
        set_(kernel_set<T>(kernels_)),
        key_{seed, 0, args.step, tensor.index, 0},
        block_(block),
        factor_(static_cast<T>(args.factor)),
        rounding_(args.rounding),
        stride_(register_stride(block)) {
    base_ = reinterpret_cast<T**>(memory);  // memory begins with one pointer per place; the scratch registers follow
    const size_t places = static_cast<size_t>(code.num_slots + code.num_temps);
    scratch_ = memory + (places * sizeof(T*) + kLine - 1) / kLine * kLine;
    for (int p = code.num_slots; p < code.num_slots + code.num_temps; ++p) base_[p] = scratch(p);
  }

  static size_t bytes(const Lowered& code, int block) {
    const size_t places = static_cast<size_t>(code.num_slots + code.num_temps);
    return places * (sizeof(T*) + register_stride(block)) + kLine;
  }

  // `folds`: the reductions of the tensor's slice.
  void run(const Chunk& chunk, FoldTarget folds = {}) {
    const int64_t origin = static_cast<int64_t>(chunk.slice) * tensor_.numel;
    for (int64_t first = chunk.begin; first < chunk.end; first += block_) {
      const int64_t n = std::min<int64_t>(block_, chunk.end - first);
      load(origin + first, n);
      key_.element = static_cast<uint64_t>(first);
      for (const KernelCall& call : code_.calls) run_call(call, base_, scalars_, key_, n, set_, folds.at(first));
      store(origin + first, n);
    }
  }

 private:
  // The bytes from one scratch register to the next: whole cache lines and one more, so that equal offsets in two
  // registers do not compete for the same cache set.
  static size_t register_stride(int block) {
    return (static_cast<size_t>(block) * sizeof(T) + kLine - 1) / kLine * kLine + kLine;
  }
  T* scratch(int place) const { return reinterpret_cast<T*>(scratch_ + stride_ * static_cast<size_t>(place)); }

  // A slot that is stored in the compute type is used where it lies. Other slots, and a gradient that is multiplied by
  // a factor, are converted into a scratch register.
  bool in_place(int slot) const {
    const DType own = std::is_same_v<T, double> ? DType::f64 : DType::f32;
    return tensor_.dtype[static_cast<size_t>(slot)] == own && !(slot == bytecode::kG && factor_ != T(1));
  }

  void load(int64_t first, int64_t n) {
    for (int s = 0; s < code_.num_slots; ++s) {
      const Stored from = stored(tensor_, s, first);
      if (in_place(s)) {
        base_[s] = reinterpret_cast<T*>(from.data);
        continue;
      }
      base_[s] = scratch(s);
      if (!(code_.reads >> s & 1)) continue;
      const T* values = reinterpret_cast<const T*>(from.data);
      if constexpr (std::is_same_v<T, float>) {
        if (from.dtype != DType::f32) {
          widen(kernels_, base_[s], from, n);
          values = base_[s];
        }
      }
      if (s == bytecode::kG && factor_ != T(1)) set_.scale(base_[s], values, factor_, n);
    }
  }

  void store(int64_t first, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
      for (int s = 0; s < code_.num_slots; ++s) {
        if (!(code_.writes >> s & 1)) continue;
        const Stored to = stored(tensor_, s, first);
        find_scales(kernels_, to, base_[s], n);
        if (is_stochastic(rounding_, s, to.dtype))
          store_stochastically(s, first, n);
        else
          narrow(kernels_, to, base_[s], n);
      }
    }
  }

  void store_stochastically(int slot, int64_t first, int64_t n) {
    DrawKey key = key_;
    for (int64_t at = 0; at < n; at += kMostRounded, key.element += kMostRounded) {
      const int64_t count = std::min(kMostRounded, n - at);
      narrow_stochastically(kernels_, stored(tensor_, slot, first + at), base_[slot] + at,
                            rounding_keys(key, output_of_slot(slot), count), count);
    }
  }

  const Lowered& code_;
  const PlannedTensor& tensor_;
  const T* scalars_;
  const Kernels& kernels_;
  const KernelSet<T>& set_;
  DrawKey key_;
  const int block_;
  const T factor_;
  const Rounding rounding_;
  const size_t stride_;
  char* scratch_;
  T** base_;
};

}  // namespace nos::cpu
