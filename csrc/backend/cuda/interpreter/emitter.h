// Owns the code that lowering is making, and the places that values have in it. A place is a register slot, or an
// overflow slot in shared memory.
#pragma once
#include <vector>

#include "lower.h"

namespace nos::cuda {

inline constexpr int kNowhere = -1;
inline constexpr int kOverflow = 1000;  // overflow slot k is place kOverflow + k; lower places are register slots

class Emitter {
 public:
  void emit(uint32_t op, uint32_t arg = 0) { out.code.push_back({op, arg}); }
  void emit_scalar(uint32_t op, Operand o) { emit(op | kScalarFlag, static_cast<uint32_t>(o.id())); }
  // The opcode of a slot op, given by that of slot 0, for a register slot.
  static uint32_t slotted(uint32_t op, int slot) { return op + static_cast<uint32_t>(slot); }
  void emit_place(Opcode in_register, Opcode in_overflow, int place) {
    if (place < kOverflow)
      emit(slotted(in_register, place));
    else
      emit(in_overflow, static_cast<uint32_t>(place - kOverflow));
  }
  void load(int place) { emit_place(k_ld, k1_ldx, place); }
  void store(int place) { emit_place(k_st, k1_stx, place); }

  // A place that holds nothing yet: a register slot, as long as there are some.
  int take() {
    std::vector<int>& list = free_.empty() ? free_overflow_ : free_;
    if (list.empty()) return kOverflow + static_cast<int>(out.overflow++);
    const int place = list.back();
    list.pop_back();
    return place;
  }
  void give_back(int place) { (place < kOverflow ? free_ : free_overflow_).push_back(place); }

  DeviceCode out;

 private:
  std::vector<int> free_, free_overflow_;
};

}  // namespace nos::cuda
