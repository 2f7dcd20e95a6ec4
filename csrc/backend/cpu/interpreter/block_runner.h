// Owns the interpreter's inner loop: the kernel calls of one program, block after block, over one chunk of one tensor.
#pragma once
#include <algorithm>
#include <type_traits>

#include "../engine.h"
#include "../kernel_call.h"
#include "lower.h"

namespace nos::cpu {

template <class T>
const KernelSet<T>& kernel_set(const Kernels& k) {
  if constexpr (std::is_same_v<T, float>)
    return k.f32;
  else
    return k.f64;
}

inline bool is_half(DType t) { return t == DType::bf16 || t == DType::f16; }

// The number of the rule's output that goes into a slot: 0 is the parameter, 1 and up are the states.
inline uint32_t output_of_slot(int slot) { return slot == bytecode::kP ? 0 : static_cast<uint32_t>(slot - 1); }

// Whether a result of this code is rounded to a half-precision dtype of the tensor.
inline bool has_half_outputs(const Lowered& code, const PlannedTensor& t) {
  for (int s = 0; s < code.num_slots; ++s)
    if (code.writes >> s & 1 && is_half(t.dtype[static_cast<size_t>(s)])) return true;
  return false;
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
        stochastic_(args.stochastic_rounding),
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
      char* at = static_cast<char*>(tensor_.data[static_cast<size_t>(s)]) +
                 first * size_of(tensor_.dtype[static_cast<size_t>(s)]);
      if (in_place(s)) {
        base_[s] = reinterpret_cast<T*>(at);
        continue;
      }
      base_[s] = scratch(s);
      if (!(code_.reads >> s & 1)) continue;
      const T* values = base_[s];
      if constexpr (std::is_same_v<T, float>) {
        switch (tensor_.dtype[static_cast<size_t>(s)]) {
          case DType::bf16:
            kernels_.from_bf16(base_[s], reinterpret_cast<const uint16_t*>(at), n);
            break;
          case DType::f16:
            kernels_.from_f16(base_[s], reinterpret_cast<const uint16_t*>(at), n);
            break;
          case DType::f32:
          case DType::f64:
            values = reinterpret_cast<const T*>(at);
        }
      } else {
        values = reinterpret_cast<const T*>(at);
      }
      if (s == bytecode::kG && factor_ != T(1)) set_.scale(base_[s], values, factor_, n);
    }
  }

  void store(int64_t first, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
      for (int s = 0; s < code_.num_slots; ++s) {
        const DType to = tensor_.dtype[static_cast<size_t>(s)];
        if (!(code_.writes >> s & 1) || !is_half(to)) continue;
        auto* at = static_cast<uint16_t*>(tensor_.data[static_cast<size_t>(s)]) + first;
        if (stochastic_)
          (to == DType::bf16 ? kernels_.to_bf16_stochastic : kernels_.to_f16_stochastic)(at, base_[s], key_,
                                                                                         output_of_slot(s), n);
        else
          (to == DType::bf16 ? kernels_.to_bf16 : kernels_.to_f16)(at, base_[s], n);
      }
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
  const bool stochastic_;
  const size_t stride_;
  char* scratch_;
  T** base_;
};

}  // namespace nos::cpu
