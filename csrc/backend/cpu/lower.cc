#include "lower.h"

#include <algorithm>
#include <limits>
#include <mutex>

namespace nos::cpu {
namespace {

constexpr int kNever = -1, kAtEnd = std::numeric_limits<int>::max();

int slot_of_output(size_t k) { return k == 0 ? bytecode::kP : bytecode::kFirstState + static_cast<int>(k) - 1; }

class Lowering {
 public:
  explicit Lowering(const Program& program)
      : program_(program),
        num_slots_(bytecode::kFirstState + program.num_states()),
        last_use_(static_cast<size_t>(program.num_values()), kNever),
        place_(static_cast<size_t>(program.num_values()), kNever) {}

  Lowered run() {
    find_last_uses();
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
  // last_use_[v]: pc of the last instruction that reads v; kAtEnd when an output does.
  void find_last_uses() {
    for (size_t pc = 0; pc < program_.code().size(); ++pc) {
      const Instr& i = program_.code()[pc];
      for (int k = 0; k < i.arity(); ++k)
        if (!i.operand(k).is_scalar()) last_use_[static_cast<size_t>(i.operand(k).id())] = static_cast<int>(pc);
    }
    for (Operand o : program_.outputs())
      if (!o.is_scalar()) last_use_[static_cast<size_t>(o.id())] = kAtEnd;
  }

  // An input that becomes the output of another slot is saved first: its own slot may be overwritten before the end.
  void save_inputs_that_move() {
    for (size_t k = 0; k < program_.outputs().size(); ++k) {
      const Operand o = program_.outputs()[k];
      const auto v = static_cast<size_t>(o.id());
      if (o.is_scalar() || o.id() >= num_slots_ || o.id() == slot_of_output(k) || place_[v] != o.id()) continue;
      if (o.id() == bytecode::kG) continue;  // the gradient is never overwritten
      const int temp = take_temp();
      out_.steps.push_back({Step::Kind::copy, Op{}, 0, 0, place(temp), {place(o.id()), 0, 0}});
      place_[v] = temp;
    }
  }

  // The slot that value v may be written to directly by instruction pc, or kNever: v must be the new value of that slot
  // only, and the slot's old value must not be needed after pc.
  int direct_slot(int v, int pc) const {
    int slot = kNever;
    for (size_t k = 0; k < program_.outputs().size(); ++k) {
      const Operand o = program_.outputs()[k];
      if (o.is_scalar() || o.id() != v) continue;
      if (slot == kNever) slot = slot_of_output(k);  // further slots get a copy at the end
    }
    if (slot == kNever) return kNever;
    const auto old = static_cast<size_t>(slot);
    const bool needed = place_[old] == slot && last_use_[old] > pc;
    return needed ? kNever : slot;
  }

  void emit(int pc) {
    const Instr& i = program_.code()[static_cast<size_t>(pc)];
    const int v = program_.first_instr_value() + pc;
    if (last_use_[static_cast<size_t>(v)] == kNever) return;  // dead
    Step step{info(i.op).domain == Domain::random ? Step::Kind::random : Step::Kind::map, i.op, 0, 0, 0, {0, 0, 0}};
    if (step.kind == Step::Kind::random) step.site = static_cast<uint16_t>(i.site());
    for (int k = 0; k < i.arity(); ++k) {
      const Operand o = i.operand(k);
      if (o.is_scalar()) step.scalars |= static_cast<uint8_t>(1 << k);
      step.arg[k] =
          o.is_scalar() ? static_cast<uint16_t>(kScalarPlace + o.id()) : place(place_[static_cast<size_t>(o.id())]);
    }
    for (int k = 0; k < i.arity(); ++k) release(i.operand(k), pc);  // the result may take an operand's place
    const int slot = direct_slot(v, pc);
    const int dst = slot != kNever ? slot : take_temp();
    step.dst = place(dst);
    place_[static_cast<size_t>(v)] = dst;
    out_.steps.push_back(step);
  }

  // Frees the temporary of an operand that is not read after pc.
  void release(Operand o, int pc) {
    if (o.is_scalar()) return;
    const auto v = static_cast<size_t>(o.id());
    if (last_use_[v] != pc || place_[v] < num_slots_) return;
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
        out_.steps.push_back({Step::Kind::fill, Op{}, 1, 0, place(slot), {arg, 0, 0}});
      } else if (place_[static_cast<size_t>(o.id())] != slot) {
        out_.steps.push_back(
            {Step::Kind::copy, Op{}, 0, 0, place(slot), {place(place_[static_cast<size_t>(o.id())]), 0, 0}});
      }
    }
  }

  void find_traffic() {
    out_.reads = out_.writes = 0;
    for (const Step& s : out_.steps) {
      const int arity = s.kind == Step::Kind::copy || s.kind == Step::Kind::fill ? 1 : info(s.op).arity;
      for (int k = 0; k < arity; ++k)
        if (!(s.scalars >> k & 1) && s.arg[k] < num_slots_ && !(out_.writes >> s.arg[k] & 1))
          out_.reads |= 1u << s.arg[k];
      if (s.dst < num_slots_) out_.writes |= 1u << s.dst;
    }
  }

  static uint16_t place(int p) { return static_cast<uint16_t>(p); }

  const Program& program_;
  const int num_slots_;
  int num_temps_ = 0;
  std::vector<int> last_use_, place_, free_;
  Lowered out_;
};

}  // namespace

Lowered lower(const Program& program) { return Lowering(program).run(); }

std::shared_ptr<const Lowered> lowered(const Program& program) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& slot = program.attached(Attachment::cpu_code);
  if (!slot) slot = std::make_shared<const Lowered>(lower(program));
  return std::static_pointer_cast<const Lowered>(slot);
}

}  // namespace nos::cpu
