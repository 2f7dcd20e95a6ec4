#include "lower.h"

#include <algorithm>
#include <mutex>
#include <string_view>

#include "../../../program/analysis.h"

namespace nos::cpu {
namespace {

constexpr int kNowhere = -1;

class Lowering {
 public:
  explicit Lowering(const Program& program)
      : program_(program),
        num_slots_(bytecode::kFirstState + program.num_states()),
        uses_(program),
        place_(static_cast<size_t>(program.num_values()), kNowhere) {}

  Lowered run() {
    for (int s = 0; s < num_slots_; ++s) place_[static_cast<size_t>(s)] = s;
    save_inputs_that_move();
    for (size_t pc = 0; pc < program_.code().size(); ++pc) emit(static_cast<int>(pc));
    store_outputs();
    out_.num_slots = num_slots_;
    out_.num_temps = num_temps_;
    out_.cost = program_.cost();
    find_traffic();
    return std::move(out_);
  }

 private:
  void save_inputs_that_move() {
    for (const int v : inputs_that_move(program_.outputs(), num_slots_)) {
      const int temp = take_temp();
      out_.calls.push_back({KernelCall::Kind::copy, Op{}, 0, 0, place(temp), {place(v), 0, 0}});
      place_[static_cast<size_t>(v)] = temp;
    }
  }

  // The slot that instruction pc may write value v into directly, or kNowhere. v must be the new value of that slot,
  // and nothing may read the slot's old value after pc.
  int direct_slot(int v, int pc) const {
    int slot = kNowhere;
    for (size_t k = 0; k < program_.outputs().size(); ++k) {
      const Operand o = program_.outputs()[k];
      if (o.is_scalar() || o.id() != v) continue;
      if (slot == kNowhere) slot = slot_of_output(k);  // further slots get a copy at the end
    }
    if (slot == kNowhere) return kNowhere;
    const auto old = static_cast<size_t>(slot);
    const bool needed = place_[old] == slot && uses_.last_read[old] > pc;
    return needed ? kNowhere : slot;
  }

  void emit(int pc) {
    const Instr& i = program_.code()[static_cast<size_t>(pc)];
    const int v = program_.first_instr_value() + pc;
    if (!uses_.is_live(v) && !is_reduction(i.op)) return;
    KernelCall call{info(i.op).domain == Domain::random ? KernelCall::Kind::random : KernelCall::Kind::map,
                    i.op,
                    0,
                    0,
                    0,
                    {0, 0, 0}};
    if (call.kind == KernelCall::Kind::random) call.site = static_cast<uint16_t>(i.site());
    for (int k = 0; k < i.arity(); ++k) {
      const Operand o = i.operand(k);
      if (o.is_scalar()) call.scalars |= static_cast<uint8_t>(1 << k);
      call.arg[k] =
          o.is_scalar() ? static_cast<uint16_t>(kScalarPlace + o.id()) : place(place_[static_cast<size_t>(o.id())]);
    }
    for (int k = 0; k < i.arity(); ++k) release(i.operand(k), pc);  // the result may take an operand's place
    if (is_reduction(i.op)) {
      call.kind = KernelCall::Kind::fold;
      call.site = num_folds_++;
      out_.calls.push_back(call);
      return;
    }
    const int slot = direct_slot(v, pc);
    const int dst = slot != kNowhere ? slot : take_temp();
    call.dst = place(dst);
    place_[static_cast<size_t>(v)] = dst;
    out_.calls.push_back(call);
  }

  // Frees the temporary of an operand that is not read after pc.
  void release(Operand o, int pc) {
    if (o.is_scalar()) return;
    const auto v = static_cast<size_t>(o.id());
    if (uses_.last_read[v] != pc || place_[v] < num_slots_) return;
    if (std::find(free_.begin(), free_.end(), place_[v]) == free_.end()) free_.push_back(place_[v]);
  }

  int take_temp() {
    if (free_.empty()) return num_slots_ + num_temps_++;
    const int temp = free_.back();
    free_.pop_back();
    return temp;
  }

  void store_outputs() {
    for (size_t k = 0; k < program_.outputs().size(); ++k) {
      const Operand o = program_.outputs()[k];
      const int slot = slot_of_output(k);
      if (o.is_scalar()) {
        const auto arg = static_cast<uint16_t>(kScalarPlace + o.id());
        out_.calls.push_back({KernelCall::Kind::fill, Op{}, 1, 0, place(slot), {arg, 0, 0}});
      } else if (place_[static_cast<size_t>(o.id())] != slot) {
        out_.calls.push_back(
            {KernelCall::Kind::copy, Op{}, 0, 0, place(slot), {place(place_[static_cast<size_t>(o.id())]), 0, 0}});
      }
    }
  }

  void find_traffic() {
    out_.reads = out_.writes = 0;
    for (const KernelCall& call : out_.calls) {
      const bool moves = call.kind == KernelCall::Kind::copy || call.kind == KernelCall::Kind::fill;
      const int arity = moves ? 1 : info(call.op).arity;
      for (int k = 0; k < arity; ++k)
        if (!(call.scalars >> k & 1) && call.arg[k] < num_slots_ && !(out_.writes >> call.arg[k] & 1))
          out_.reads |= 1u << call.arg[k];
      if (call.dst < num_slots_ && call.kind != KernelCall::Kind::fold) out_.writes |= 1u << call.dst;
    }
  }

  static uint16_t place(int p) { return static_cast<uint16_t>(p); }

  const Program& program_;
  const int num_slots_;
  int num_temps_ = 0;
  uint16_t num_folds_ = 0;
  const Uses uses_;
  std::vector<int> place_, free_;
  Lowered out_;
};

}  // namespace

Lowered lower(const Program& program) { return Lowering(program).run(); }

// It was measured as a time per unit of OpInfo::cost and one per slot.
double interpreter_cost(const Lowered& code, bool wide) {
  static const double lanes = std::string_view(isa().name) == "avx512" ? 1
                              : std::string_view(isa().name) == "avx2" ? 1.7
                                                                       : 4;
  return (0.03 * code.cost + 0.02 * code.num_slots) * lanes * (wide ? 2 : 1);
}

std::shared_ptr<const Lowered> lowered(const Program& program) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& kept = program.kept.cpu_code;
  if (!kept) kept = std::make_shared<const Lowered>(lower(program));
  return kept;
}

}  // namespace nos::cpu
