#include "stages.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../../../program/analysis.h"

#include "expand.h"
#include "schedule.h"

namespace nos::cpu::native {
namespace {

class Cutter {
 public:
  Cutter(const Graph& graph, const DType* dtypes, Target target)
      : graph_(graph),
        dtypes_(dtypes),
        target_(target),
        slots_(graph.num_inputs),
        plan_(make_schedule(graph, dtypes, target == Target::avx512)) {}

  Stages run() {
    for (int s = 0; s < slots_; ++s)
      if (is_half(s) && value(s).last_use >= 0)
        out_.stages.push_back({Stage::Kind::widen, u16(s), u16(value(s).place)});
    for (int level = 0; level <= plan_.last_level; ++level) {
      emit_segment(level);
      emit_kernels(level);
    }
    for (size_t k = 0; k < graph_.outputs.size(); ++k)
      if (const int from = plan_.narrow_from[k]; from >= 0)
        out_.stages.push_back({Stage::Kind::narrow, u16(slot_of_output(k)), u16(value(from).place)});
    out_.num_scratch = plan_.num_scratch;
    return std::move(out_);
  }

 private:
  static uint16_t u16(int v) { return static_cast<uint16_t>(v); }
  const Value& value(int v) const { return plan_.values[static_cast<size_t>(v)]; }
  int id_of(size_t node) const { return slots_ + static_cast<int>(node); }
  bool is_half(int slot) const { return dtypes_[slot] != DType::f32 && !plan_.converts; }

  static Home::Kind slot_kind(DType t) {
    switch (t) {
      case DType::f32:
        return Home::slot;
      case DType::bf16:
        return Home::slot_bf16;
      case DType::f16:
        return Home::slot_f16;
      case DType::f64:
        break;
    }
    throw std::logic_error("fused loops have no code for " + std::string(name_of(t)));
  }

  Home home(int place) const {
    if (place < slots_) {
      return {slot_kind(dtypes_[place]), static_cast<uint32_t>(place)};
    }
    return {Home::scratch, static_cast<uint32_t>(place - slots_)};
  }

  // ---- one loop -----------------------------------------------------------------------------------------------------
  struct Loop {
    Segment segment;
    std::vector<int> local;  // value -> value of the segment, -1 if none yet
  };

  uint16_t operand(Loop& loop, Expander& expand, Operand o) {
    if (o.is_scalar()) return expand.at({Home::scalar, static_cast<uint32_t>(o.id())});
    int& local = loop.local[static_cast<size_t>(o.id())];
    if (local < 0) local = expand.at(home(value(o.id()).place));
    return u16(local);
  }

  bool is_number(Operand o) const {
    if (!o.is_scalar()) return false;
    const float x = graph_.constants[static_cast<size_t>(o.id())];
    return std::isfinite(x) ? x != 0 : std::isinf(x);
  }

  void emit_node(Loop& loop, Expander& expand, const Node& n, int id) {
    uint16_t result;
    if (n.table >= 0) {
      result = expand.lookup(operand(loop, expand, n.a), n.table);
    } else if (n.op == Op::where && !n.a.is_scalar() && value(n.a.id()).fused) {
      const Node& test = graph_.nodes[static_cast<size_t>(n.a.id() - slots_)];
      result = expand.select(native_op(test.op).predicate, operand(loop, expand, test.a), operand(loop, expand, test.b),
                             operand(loop, expand, n.b), operand(loop, expand, n.c));
    } else {
      uint16_t src[3] = {0, 0, 0};
      bool number[3] = {false, false, false};
      for (int k = 0; k < n.arity(); ++k) {
        src[k] = operand(loop, expand, n.operand(k));
        number[k] = is_number(n.operand(k));
      }
      const auto divisor = std::find(graph_.divisors.begin(), graph_.divisors.end(), n.b.id());
      if (n.op == Op::div && !n.a.is_scalar() && n.b.is_scalar() && divisor != graph_.divisors.end())
        result = expand.quotient(src[0], src[1], static_cast<int>(divisor - graph_.divisors.begin()));
      else
        result = expand.op(n.op, src, number);
    }
    loop.local[static_cast<size_t>(id)] = result;
  }

  void emit_segment(int level) {
    Loop loop{{}, std::vector<int>(plan_.values.size(), -1)};
    Expander expand(loop.segment, target_, first_divisor(graph_));
    if (level == 0) {
      for (const auto& [input, copy] : plan_.copies)
        loop.local[static_cast<size_t>(copy)] = expand.copy(expand.at(home(value(input).place)));
      for (const auto& [scalar, id] : plan_.fills)
        loop.local[static_cast<size_t>(id)] = expand.copy(operand(loop, expand, scalar));
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const int id = id_of(i);
      if (value(id).defined == 2 * level && !value(id).fused) emit_node(loop, expand, graph_.nodes[i], id);
    }
    for (const Store& s : plan_.stores)
      if (s.level == level)
        expand.store(s.value < 0 ? operand(loop, expand, s.scalar) : operand(loop, expand, Operand{u16(s.value)}),
                     home(s.slot));
    for (int v = slots_; v < static_cast<int>(plan_.values.size()); ++v)
      if (const Value& x = value(v); x.defined == 2 * level && x.place >= slots_)
        expand.store(u16(loop.local[static_cast<size_t>(v)]), home(x.place));
    if (loop.segment.code.empty()) return;
    advance_stores(loop.segment);
    out_.segments.push_back(std::move(loop.segment));
    out_.stages.push_back({Stage::Kind::segment, u16(static_cast<int>(out_.segments.size()) - 1)});
  }

  // Moves each store up behind the definition of its value and the last read of what it overwrites.
  static void advance_stores(Segment& segment) {
    const auto& code = segment.code;
    std::vector<size_t> after(segment.values.size(), 0);  // place behind the definition or the last read
    size_t first_store = 0;
    for (; first_store < code.size() && code[first_store].op != V::store; ++first_store) {
      const VInstr& i = code[first_store];
      after[i.dst] = std::max(after[i.dst], first_store + 1);
      for (int k = 0; k < info(i.op).sources; ++k)
        if (segment.values[i.src[k]].kind != Home::computed) after[i.src[k]] = first_store + 1;
    }
    struct Place {
      size_t at;
      VInstr store;
    };
    std::vector<Place> places;
    for (size_t i = first_store; i < code.size(); ++i) {
      const uint16_t v = code[i].src[0];
      const size_t defined = segment.values[v].kind == Home::computed ? after[v] : 0;
      places.push_back({std::max(defined, after[code[i].dst]), code[i]});
    }
    std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.at < b.at; });
    std::vector<VInstr> merged;
    merged.reserve(code.size());
    size_t next = 0;
    for (size_t i = 0; i <= first_store; ++i) {
      for (; next < places.size() && places[next].at == i; ++next) merged.push_back(places[next].store);
      if (i < first_store) merged.push_back(code[i]);
    }
    segment.code = std::move(merged);
  }

  void emit_kernels(int level) {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      const Value& v = value(id_of(i));
      if (!v.by_kernel || v.defined != 2 * level + 1) continue;
      Step step{info(n.op).domain == Domain::random ? Step::Kind::random : Step::Kind::map,
                n.op,
                0,
                0,
                u16(v.place),
                {0, 0, 0}};
      if (step.kind == Step::Kind::random) step.site = n.c.bits;
      for (int k = 0; k < n.arity(); ++k) {
        const Operand o = n.operand(k);
        if (o.is_scalar()) step.scalars |= static_cast<uint8_t>(1 << k);
        step.arg[k] = o.is_scalar() ? u16(kScalarPlace + o.id()) : u16(value(o.id()).place);
      }
      out_.stages.push_back({Stage::Kind::kernel, 0, 0, step});
    }
  }

  const Graph& graph_;
  const DType* dtypes_;
  const Target target_;
  const int slots_;
  const Schedule plan_;
  Stages out_;
};

}  // namespace

Stages cut(const Graph& graph, const DType* dtypes, Target target) { return Cutter(graph, dtypes, target).run(); }

}  // namespace nos::cpu::native
