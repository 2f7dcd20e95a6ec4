#include "stages.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../../../program/analysis.h"
#include "../storage.h"
#include "expand.h"
#include "schedule.h"

namespace nos::cpu::native {
namespace {

class Cutter {
 public:
  Cutter(const Graph& graph, const DType* dtypes, Rounding rounding, Target target)
      : graph_(graph),
        dtypes_(dtypes),
        rounding_(rounding),
        target_(target),
        slots_(graph.num_inputs),
        plan_(make_schedule(graph, dtypes, rounding, target == Target::avx512)) {}

  StagedProgram run() {
    for (int s = 0; s < slots_; ++s)
      if (plan_.converted[static_cast<size_t>(s)] && value(s).last_use >= 0)
        out_.stages.push_back({is_decoded(s) ? Stage::Kind::spread : Stage::Kind::widen, u16(s), u16(value(s).place)});
    for (int level = 0; level <= plan_.last_level; ++level) {
      add_loop(level);
      add_kernels(level);
    }
    // The way to a scale is long, but those of several slots take no longer: so they come before all codes.
    for_narrowed([&](int slot, uint16_t place) {
      if (is_quantized(dtypes_[slot])) out_.stages.push_back({Stage::Kind::scales, u16(slot), place});
    });
    for_narrowed([&](int slot, uint16_t place) {
      const bool stochastic = is_stochastic(rounding_, slot, dtypes_[slot]);
      out_.stages.push_back({stochastic ? Stage::Kind::narrow_stochastically : Stage::Kind::narrow, u16(slot), place});
    });
    out_.num_scratch = plan_.num_scratch;
    return std::move(out_);
  }

 private:
  static uint16_t u16(int v) { return static_cast<uint16_t>(v); }
  const ScheduledValue& value(int v) const { return plan_.values[static_cast<size_t>(v)]; }
  int id_of(size_t node) const { return slots_ + static_cast<int>(node); }
  bool is_decoded(int slot) const { return plan_.decoded[static_cast<size_t>(slot)]; }

  // Calls visit(slot, place) for each output that is narrowed from its place into its slot at the end.
  template <class Visit>
  void for_narrowed(const Visit& visit) const {
    for (size_t k = 0; k < graph_.outputs.size(); ++k)
      if (const int from = plan_.narrow_from[k]; from >= 0) visit(slot_of_output(k), u16(value(from).place));
  }

  static Home::Kind slot_kind(DType t) {
    switch (t) {
      case DType::f32:
        return Home::slot;
      case DType::bf16:
        return Home::slot_bf16;
      case DType::f16:
        return Home::slot_f16;
      case DType::i8:
        return Home::slot_i8;
      case DType::u8:
        return Home::slot_u8;
      case DType::f64:
        break;
    }
    throw std::logic_error("fused loops have no code for " + std::string(name_of(t)));
  }

  Home home(int place) const {
    if (place < slots_) return {slot_kind(dtypes_[place]), static_cast<uint32_t>(place)};
    return {Home::scratch, static_cast<uint32_t>(place - slots_)};
  }

  // Where loops read a value of the schedule.
  Home home_of(int id) const {
    const int place = value(id).place;
    if (id >= slots_ || !is_decoded(id)) return home(place);
    return {slot_kind(dtypes_[id]), static_cast<uint32_t>(id), static_cast<uint32_t>(place - slots_)};
  }

  // ---- one loop -----------------------------------------------------------------------------------------------------
  struct Draft {
    Draft(size_t values, Target target, int first_divisor)
        : expand(loop, target, first_divisor), local(values, kNotInLoop) {}
    static constexpr int kNotInLoop = -1;
    ValueLoop loop;
    Expander expand;         // appends to `loop`
    std::vector<int> local;  // of each value of the schedule: its number in the loop
  };

  uint16_t operand(Draft& draft, Operand o) {
    if (o.is_scalar()) return draft.expand.at({Home::scalar, static_cast<uint32_t>(o.id())});
    int& local = draft.local[static_cast<size_t>(o.id())];
    if (local == Draft::kNotInLoop) local = draft.expand.at(home_of(o.id()));
    return u16(local);
  }

  bool is_number(Operand o) const {
    if (!o.is_scalar()) return false;
    const float x = graph_.constants[static_cast<size_t>(o.id())];
    return std::isfinite(x) ? x != 0 : std::isinf(x);
  }

  uint16_t add_node(Draft& draft, const Node& n) {
    if (n.table >= 0) return draft.expand.lookup(operand(draft, n.a), n.table);
    if (n.op == Op::where && !n.a.is_scalar() && value(n.a.id()).absorbed) {
      const Node& test = graph_.nodes[static_cast<size_t>(n.a.id() - slots_)];
      const uint16_t a = operand(draft, test.a), b = operand(draft, test.b);
      const uint16_t yes = operand(draft, n.b), no = operand(draft, n.c);
      return draft.expand.select(native_op(test.op).predicate, a, b, yes, no);
    }
    uint16_t src[3] = {0, 0, 0};
    bool number[3] = {false, false, false};
    for (int k = 0; k < n.arity(); ++k) {
      src[k] = operand(draft, n.operand(k));
      number[k] = is_number(n.operand(k));
    }
    if (n.divisor >= 0) return draft.expand.quotient(src[0], src[1], n.divisor);
    return draft.expand.op(n.op, src, number);
  }

  void add_loop(int level) {
    Draft draft(plan_.values.size(), target_, first_divisor(graph_));
    if (level == 0) {
      for (const auto& [input, copy] : plan_.copies)
        draft.local[static_cast<size_t>(copy)] = draft.expand.copy(draft.expand.at(home_of(input)));
      for (const auto& [scalar, id] : plan_.fills)
        draft.local[static_cast<size_t>(id)] = draft.expand.copy(operand(draft, scalar));
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const int id = id_of(i);
      if (value(id).defined == 2 * level && !value(id).absorbed)
        draft.local[static_cast<size_t>(id)] = add_node(draft, graph_.nodes[i]);
    }
    for (const Store& s : plan_.stores)
      if (s.level == level)
        draft.expand.store(operand(draft, s.value < 0 ? s.scalar : Operand{u16(s.value)}), home(s.slot));
    for (int v = slots_; v < static_cast<int>(plan_.values.size()); ++v)
      if (const ScheduledValue& x = value(v); x.defined == 2 * level && x.place >= slots_)
        draft.expand.store(u16(draft.local[static_cast<size_t>(v)]), home(x.place));
    if (draft.loop.code.empty()) return;
    advance_stores(draft.loop);
    out_.loops.push_back(std::move(draft.loop));
    out_.stages.push_back({Stage::Kind::loop, u16(static_cast<int>(out_.loops.size()) - 1)});
  }

  // Moves each store up to right after the definition of its value, or after the last read of what it overwrites.
  static void advance_stores(ValueLoop& loop) {
    const auto& code = loop.code;
    std::vector<size_t> after(loop.values.size(), 0);  // of each value: after its definition or last read
    size_t first_store = 0;
    for (; first_store < code.size() && code[first_store].op != VOp::store; ++first_store) {
      const ValueInstr& i = code[first_store];
      after[i.dst] = std::max(after[i.dst], first_store + 1);
      for (int k = 0; k < info(i.op).sources; ++k)
        if (loop.values[i.src[k]].kind != Home::computed) after[i.src[k]] = first_store + 1;
    }
    struct Moved {
      size_t before;
      ValueInstr store;
    };
    std::vector<Moved> moved;
    for (size_t i = first_store; i < code.size(); ++i) {
      const uint16_t v = code[i].src[0];
      const size_t defined = loop.values[v].kind == Home::computed ? after[v] : 0;
      moved.push_back({std::max(defined, after[code[i].dst]), code[i]});
    }
    std::stable_sort(moved.begin(), moved.end(), [](const Moved& a, const Moved& b) { return a.before < b.before; });
    std::vector<ValueInstr> merged;
    merged.reserve(code.size());
    size_t next = 0;
    for (size_t i = 0; i <= first_store; ++i) {
      for (; next < moved.size() && moved[next].before == i; ++next) merged.push_back(moved[next].store);
      if (i < first_store) merged.push_back(code[i]);
    }
    loop.code = std::move(merged);
  }

  // Reductions are numbered in the order of the nodes.
  uint16_t number_of_fold(size_t node) const {
    uint16_t count = 0;
    for (size_t i = 0; i < node; ++i) count += graph_.nodes[i].table < 0 && is_reduction(graph_.nodes[i].op);
    return count;
  }

  void add_kernels(int level) {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      const ScheduledValue& v = value(id_of(i));
      if (!v.by_kernel || v.defined != 2 * level + 1) continue;
      const bool random = info(n.op).domain == Domain::random;
      const bool fold = is_reduction(n.op);
      KernelCall call{random ? KernelCall::Kind::random : KernelCall::Kind::map, n.op, 0, 0, u16(v.place), {0, 0, 0}};
      if (random) call.site = n.c.bits;
      if (fold) call = {KernelCall::Kind::fold, n.op, 0, number_of_fold(i), 0, {0, 0, 0}};
      for (int k = 0; k < n.arity(); ++k) {
        const Operand o = n.operand(k);
        if (o.is_scalar()) call.scalars |= static_cast<uint8_t>(1 << k);
        call.arg[k] = o.is_scalar() ? u16(kScalarPlace + o.id()) : u16(value(o.id()).place);
      }
      out_.stages.push_back({Stage::Kind::kernel, 0, 0, call});
    }
  }

  const Graph& graph_;
  const DType* dtypes_;
  const Rounding rounding_;
  const Target target_;
  const int slots_;
  const Schedule plan_;
  StagedProgram out_;
};

}  // namespace

StagedProgram cut(const Graph& graph, const DType* dtypes, Rounding rounding, Target target) {
  return Cutter(graph, dtypes, rounding, target).run();
}

}  // namespace nos::cpu::native
