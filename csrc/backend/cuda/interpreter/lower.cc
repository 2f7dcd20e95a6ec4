#include "lower.h"

#include <mutex>

#include "../../../program/analysis.h"
#include "emitter.h"
#include "trees.h"

namespace nos::cuda {
namespace {

constexpr uint32_t kNone = ~0u;  // no opcode

// The instructions of a binary op. If on_slots is set, `op` and `swapped` take any register slot and have forms with an
// immediate. Otherwise the second operand is in kT. `swapped` computes a = s op a.
struct Binary {
  bool on_slots;
  uint32_t op, swapped, immediate = kNone, swapped_immediate = kNone;
};
constexpr Binary b_add{true, k_add, k_add, k1_addc, k1_addc}, b_sub{true, k_sub, k_rsub, k1_subc, k1_rsubc},
    b_mul{true, k_mul, k_mul, k1_mulc, k1_mulc}, b_min{true, k_min, k_min, k1_minc, k1_minc},
    b_max{true, k_max, k_max, k1_maxc, k1_maxc}, b_div{false, k1_div, k1_rdiv}, b_pow{false, k1_pow, kNone},
    b_lt{false, k1_lt, k1_gt}, b_le{false, k1_le, k1_ge}, b_gt{false, k1_gt, k1_lt}, b_ge{false, k1_ge, k1_le},
    b_eq{false, k1_eq, k1_eq}, b_ne{false, k1_ne, k1_ne};

class Lowering : Emitter {
 public:
  Lowering(const Program& program, uint32_t registers)
      : program_(program), trees_(program), left_(trees_.reads), place_(trees_.reads.size(), kNowhere) {
    for (int s = 0; s < static_cast<int>(registers); ++s)
      if (s != static_cast<int>(kT) && !(s == static_cast<int>(kU) && trees_.uses_third) && !is_home(s) &&
          s != bytecode::kG)
        give_back(s);
  }

  DeviceCode run() {
    place_inputs();
    for (int v = inputs(); v < program_.num_values(); ++v) {
      const Instr& i = instr(Operand{static_cast<uint16_t>(v)});
      if (is_reduction(i.op))
        fold(i);
      else if (trees_.root[static_cast<size_t>(v)])
        make_root(v);
    }
    store_rest();
    return std::move(out);
  }

 private:
  int inputs() const { return trees_.inputs; }
  static size_t at(Operand o) { return static_cast<size_t>(o.id()); }
  const Instr& instr(Operand o) const { return program_.code()[at(o) - static_cast<size_t>(inputs())]; }

  // Whether a place is the register of p or of a state. It must end as that output, so it never holds a temporary.
  bool is_home(int place) const {
    return place < static_cast<int>(kRegInputs) && place < inputs() && place != bytecode::kG;
  }
  bool is_tree(Operand o) const { return trees_.is_tree(o); }
  bool in_register(Operand o) const { return !o.is_scalar() && !is_tree(o) && place_[at(o)] < kOverflow; }
  bool in_accumulator(Operand o) const { return !o.is_scalar() && acc_ == o.id(); }

  // ---- places -------------------------------------------------------------------------------------------------------
  // Notes that the instruction for one read of a value has been emitted.
  void consume(Operand o) {
    if (o.is_scalar() || is_tree(o) || --left_[at(o)]) return;
    if (!is_home(place_[at(o)])) give_back(place_[at(o)]);
  }

  // An operand that is kept ready for an instruction: a scalar, a value in its place, or the result of a tree in a
  // temporary.
  struct Held {
    Operand operand;
    int temporary = kNowhere;
  };
  Held hold(Operand o) {
    if (!is_tree(o)) return {o};
    into_accumulator(o);
    const int place = take();
    store(place);
    return {o, place};
  }
  int place_of(const Held& h) const { return h.temporary != kNowhere ? h.temporary : place_[at(h.operand)]; }
  void release(const Held& h) {
    if (h.temporary != kNowhere)
      give_back(h.temporary);
    else
      consume(h.operand);
  }
  void into_t(const Held& h) {
    h.operand.is_scalar() ? emit_scalar(k1_bct, h.operand) : emit_place(k_mvt, k1_mvtx, place_of(h));
  }
  void into_u(const Held& h) {
    h.operand.is_scalar() ? emit_scalar(k1_bcu, h.operand) : emit_place(k_mvu, k1_mvux, place_of(h));
  }

  // ---- trees --------------------------------------------------------------------------------------------------------
  // acc = o, which counts as a read of o. The caller may change the accumulator afterwards.
  void into_accumulator(Operand o) {
    if (o.is_scalar())
      emit_scalar(k1_ldc, o);
    else if (is_tree(o))
      compute(instr(o));
    else if (!in_accumulator(o))
      load(place_[at(o)]);
    acc_ = kNowhere;
    consume(o);
  }

  // If a row of ops.def has no instruction, no Binary or no function here, this does not compile.
  void compute(const Instr& i) {
    switch (static_cast<ElementOp>(i.op)) {
#define NOS_CASE_1any(id)  \
  case ElementOp::id:      \
    into_accumulator(i.a); \
    emit(k1_##id);         \
    break;
#define NOS_CASE_2any(id)                                   \
  case ElementOp::id:                                       \
    if (!product_inside(i)) two_operands(b_##id, i.a, i.b); \
    break;
#define NOS_CASE_3any(id) \
  case ElementOp::id:     \
    id(i);                \
    break;
#define NOS_CASE_1random(id)           \
  case ElementOp::id:                  \
    emit_draw(k1_##id, i.a, i.site()); \
    break;
#define NOS_CASE_2random(id)           \
  case ElementOp::id:                  \
    into_accumulator(i.a);             \
    emit_draw(k1_##id, i.b, i.site()); \
    break;
#define NOS_CASE_1scalar(id)
#define NOS_CASE_2scalar(id)
#define NOS_CASE_1reduce(id)
#define NOS_CASE_2reduce(id)
#define NOS_CASE_1global(id)
#define NOS_CASE_2global(id)
#define NOS_OP(id, arity, domain, ...) NOS_CASE_##arity##domain(id)
#include "../../../ops/ops.def"
    }
    acc_ = kNowhere;
  }

  void emit_draw(Opcode op, Operand parameter, int site) {
    emit_scalar(op, parameter);
    emit(static_cast<uint32_t>(site));
  }

  void clip(const Instr& i) {  // min(max(a, lo), hi)
    const Held lo = hold(i.b), hi = hold(i.c);
    into_accumulator(i.a);
    combine(b_max, lo, false);
    combine(b_min, hi, false);
  }

  void where(const Instr& i) { with_t_and_u(k1_where, i.a, i.b, i.c); }

  void two_operands(const Binary& op, Operand a, Operand b) {
    bool b_last = in_accumulator(b) && !in_accumulator(a);  // whether b goes to the accumulator
    if (is_tree(a) && is_tree(b))
      // The one that needs more temporaries is computed first, while none is taken.
      b_last = trees_.need[at(b)] < trees_.need[at(a)];
    else if (is_tree(a) || is_tree(b))
      b_last = is_tree(b);
    else if (a.is_scalar() || b.is_scalar())
      b_last = a.is_scalar();
    const Held other = hold(b_last ? a : b);
    into_accumulator(b_last ? b : a);
    combine(op, other, b_last);
  }

  // acc = acc op other; swapped: acc = other op acc
  void combine(const Binary& b, const Held& other, bool swapped) {
    if (b.on_slots && other.operand.is_scalar()) {
      emit_scalar(swapped ? b.swapped_immediate : b.immediate, other.operand);
    } else if (b.on_slots) {
      const bool overflow = place_of(other) >= kOverflow;
      if (overflow) into_t(other);
      emit(slotted(swapped ? b.swapped : b.op, overflow ? static_cast<int>(kT) : place_of(other)));
    } else if (swapped && b.swapped == kNone) {
      emit(slotted(k_st, static_cast<int>(kT)));
      other.operand.is_scalar() ? emit_scalar(k1_ldc, other.operand) : load(place_of(other));
      emit(b.op);
    } else {
      into_t(other);
      emit(swapped ? b.swapped : b.op);
    }
    release(other);
  }

  // acc = op(first, u, t)
  void with_t_and_u(uint32_t op, Operand first, Operand u, Operand t) {
    const Held held_t = hold(t), held_u = hold(u);
    into_accumulator(first);
    into_t(held_t);
    into_u(held_u);
    emit(op);
    release(held_t);
    release(held_u);
  }

  // A reduction of a pass. It defines no value.
  void fold(const Instr& i) {
    if (i.op == Op::dot) {
      const Held b = hold(i.b);
      into_accumulator(i.a);
      into_t(b);
      release(b);
    } else {
      into_accumulator(i.a);
    }
    emit(i.op == Op::dot ? k1_dot : i.op == Op::sum ? k1_sum : k1_max_abs, out.folds++);
  }

  // ---- products inside another instruction --------------------------------------------------------------------------
  static bool scales(const Instr& i) { return i.a.is_scalar() != i.b.is_scalar(); }  // scalar times tensor
  static Operand tensor_of(const Instr& i) { return i.a.is_scalar() ? i.b : i.a; }
  static Operand scalar_of(const Instr& i) { return i.a.is_scalar() ? i.a : i.b; }
  // Whether o is a product of a scalar and a value in a register, and is read only once.
  bool is_scaled_register(Operand o) const {
    return is_tree(o) && instr(o).op == Op::mul && scales(instr(o)) && in_register(tensor_of(instr(o)));
  }
  // acc = c * slot, or another op that takes a scalar and a register slot.
  void emit_scaled(Opcode op, const Instr& product) {
    emit(slotted(op, place_[at(tensor_of(product))]) | kScalarFlag, static_cast<uint32_t>(scalar_of(product).id()));
    consume(tensor_of(product));
  }

  bool product_inside(const Instr& i) {
    if (i.op == Op::mul && scales(i) && in_register(tensor_of(i)) && !in_accumulator(tensor_of(i))) {
      emit_scaled(k_lmul, i);
    } else if (i.op == Op::add && (is_scaled_register(i.a) || is_scaled_register(i.b))) {
      const bool second = is_scaled_register(i.b);
      into_accumulator(second ? i.a : i.b);
      emit_scaled(k_mac, instr(second ? i.b : i.a));
    } else if (i.op == Op::sub && in_register(i.a) && is_tree(i.b) && instr(i.b).op == Op::mul && scales(instr(i.b))) {
      const Instr& product = instr(i.b);
      into_accumulator(tensor_of(product));
      emit(slotted(k_rmsc, place_[at(i.a)]) | kScalarFlag, static_cast<uint32_t>(scalar_of(product).id()));
      consume(i.a);
    } else {
      return false;
    }
    return true;
  }

  void fma(const Instr& i) {
    if (scales(i) && in_register(tensor_of(i))) {
      into_accumulator(i.c);
      emit_scaled(k_fmac, i);
    } else if (is_tree(i.c)) {
      with_t_and_u(k1_fmaa, i.c, i.a, i.b);
    } else {
      with_t_and_u(k1_fma, i.a, i.b, i.c);
    }
  }

  // ---- inputs and outputs -------------------------------------------------------------------------------------------
  void place_inputs() {
    for (int v = 0; v < inputs(); ++v) {
      const auto i = static_cast<size_t>(v);
      if (v < static_cast<int>(kRegInputs)) {
        place_[i] = v;
        if (left_[i])
          out.reads |= 1u << v;
        else if (v == bytecode::kG)
          give_back(v);
      } else if (left_[i]) {
        emit(k1_ldm, static_cast<uint32_t>(v));
        place_[i] = take();
        store(place_[i]);
      }
    }
    for (const int v : inputs_that_move(program_.outputs(), inputs())) {
      int& place = place_[static_cast<size_t>(v)];
      if (!is_home(place)) continue;  // only a slot that has a register is overwritten before the end
      load(place);
      place = take();
      store(place);
    }
  }

  void store_output(int slot) {
    if (slot < static_cast<int>(kRegInputs)) {
      emit(slotted(k_st, slot));
      out.writes |= 1u << slot;
    } else {
      emit(k1_stm, static_cast<uint32_t>(slot));
    }
  }

  void make_root(int v) {
    const Operand self{static_cast<uint16_t>(v)};
    compute(instr(self));
    acc_ = v;
    int home = kNowhere;
    stored_.resize(program_.outputs().size());
    for (size_t k = 0; k < stored_.size(); ++k) {
      const int slot = slot_of_output(k);
      const auto old = static_cast<size_t>(slot);
      // Another value may still have to read the old value of the slot there.
      if (program_.outputs()[k] != self || (place_[old] == slot && left_[old])) continue;
      store_output(slot);
      if (is_home(slot)) home = slot;
      stored_[k] = true;
      --left_[at(self)];
    }
    if (!left_[at(self)]) return;
    place_[at(self)] = home != kNowhere ? home : take();
    if (home == kNowhere) store(place_[at(self)]);
  }

  void store_rest() {
    stored_.resize(program_.outputs().size());
    for (size_t k = 0; k < stored_.size(); ++k) {
      if (stored_[k] || keeps_its_slot(program_.outputs(), k)) continue;
      into_accumulator(program_.outputs()[k]);
      store_output(slot_of_output(k));
    }
  }

  const Program& program_;
  const Trees trees_;
  std::vector<int> left_;  // reads of each value that are still to come
  std::vector<int> place_;
  std::vector<bool> stored_;  // per output
  int acc_ = kNowhere;        // the value that the accumulator holds
};

}  // namespace

DeviceCode lower(const Program& program, uint32_t registers) { return Lowering(program, registers).run(); }

std::shared_ptr<const DeviceCode> lowered(const Program& program) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& kept = program.kept.cuda_code;
  if (!kept) kept = std::make_shared<const DeviceCode>(lower(program));
  return kept;
}

}  // namespace nos::cuda
