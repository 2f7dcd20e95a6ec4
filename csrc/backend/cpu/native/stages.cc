#include "stages.h"

#include <algorithm>
#include <cmath>

#include "expand.h"

namespace nos::cpu::native {
namespace {

constexpr int kEnd = 1 << 20;  // a stage after all others

int slot_of_output(size_t k) { return k == 0 ? bytecode::kP : bytecode::kFirstState + static_cast<int>(k) - 1; }

// Time in the order of execution: the loop of level k is stage 2 k, its kernels are stage 2 k + 1.
struct Value {
  int level = 0;
  int defined = -1;   // stage; -1 for inputs
  int last_use = -1;  // stage
  bool by_kernel = false;
  bool in_slot = false;  // from its definition on it lies in the slot `place`
  int place = -1;        // where later stages find it: slot, or num_slots + scratch array
};

class Cutter {
 public:
  Cutter(const Graph& graph, const DType* dtypes, Target target)
      : graph_(graph),
        dtypes_(dtypes),
        target_(target),
        slots_(graph.num_inputs),
        values_(static_cast<size_t>(graph.num_inputs) + graph.nodes.size()),
        old_read_(static_cast<size_t>(slots_), 0),
        fused_(values_.size()) {}

  Stages run() {
    find_levels();
    add_copies();
    place_stores();
    find_uses();
    place_values();
    for (int s = 0; s < slots_; ++s)
      if (is_half(s) && values_[static_cast<size_t>(s)].last_use >= 0)
        out_.stages.push_back({Stage::Kind::widen, u16(s), u16(values_[static_cast<size_t>(s)].place)});
    for (int level = 0; level <= last_level_; ++level) {
      emit_segment(level);
      emit_kernels(level);
    }
    for (size_t k = 0; k < graph_.outputs.size(); ++k)
      if (is_half(slot_of_output(k)) && narrow_from_[k] >= 0)
        out_.stages.push_back({Stage::Kind::narrow, u16(slot_of_output(k)), u16(value(narrow_from_[k]).place)});
    out_.num_scratch = num_scratch_;
    return std::move(out_);
  }

 private:
  struct Store {
    int value;  // or -1: the scalar
    Operand scalar;
    int slot;
    int level;
  };
  struct Copy {
    int input, value;
  };

  static uint16_t u16(int v) { return static_cast<uint16_t>(v); }
  Value& value(int v) { return values_[static_cast<size_t>(v)]; }
  int id_of(size_t node) const { return slots_ + static_cast<int>(node); }
  static bool is_kernel(const Node& n) { return n.table < 0 && is_kernel_op(n.op); }
  bool is_half(int slot) const { return dtypes_[slot] != DType::f32; }

  template <class Visit>
  static void operands(const Node& n, const Visit& visit) {
    for (int k = 0; k < n.arity(); ++k)
      if (!n.operand(k).is_scalar()) visit(n.operand(k).id());
  }

  void find_levels() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      Value& v = value(id_of(i));
      operands(n, [&](int o) { v.level = std::max(v.level, value(o).level); });
      v.by_kernel = is_kernel(n);
      v.defined = 2 * v.level + (v.by_kernel ? 1 : 0);
      last_level_ = std::max(last_level_, v.level);
      if (v.by_kernel) ++v.level;  // its result counts for the next level
      const int read = v.by_kernel ? v.level : v.defined / 2;
      operands(n, [&](int o) {
        if (o < slots_) old_read_[static_cast<size_t>(o)] = std::max(old_read_[static_cast<size_t>(o)], read);
      });
    }
  }

  // An input that becomes the new value of another slot is copied first: its own slot may be overwritten before.
  void add_copies() {
    for (size_t k = 0; k < graph_.outputs.size(); ++k) {
      const Operand o = graph_.outputs[k];
      if (o.is_scalar() || o.id() >= slots_ || o.id() == slot_of_output(k)) continue;
      if (std::any_of(copies_.begin(), copies_.end(), [&](const Copy& c) { return c.input == o.id(); })) continue;
      Value v;
      v.defined = 0;
      values_.push_back(v);
      copies_.push_back({o.id(), static_cast<int>(values_.size()) - 1});
    }
    fused_.resize(values_.size());
  }

  void place_stores() {
    narrow_from_.assign(graph_.outputs.size(), -1);
    for (size_t k = 0; k < graph_.outputs.size(); ++k) {
      const Operand o = graph_.outputs[k];
      const int slot = slot_of_output(k);
      int id = -1;
      if (!o.is_scalar()) {
        id = o.id();
        if (id == slot) continue;
        for (const Copy& c : copies_)
          if (c.input == o.id()) id = c.value;
      }
      if (is_half(slot)) {
        if (id < 0) {  // a scalar: as a value of its own
          Value v;
          v.defined = 0;
          values_.push_back(v);
          fused_.resize(values_.size());
          id = static_cast<int>(values_.size()) - 1;
          fills_.push_back({o, id});
        }
        narrow_from_[k] = id;
        continue;
      }
      const int free = old_read_[static_cast<size_t>(slot)];
      if (id >= 0 && value(id).by_kernel && !value(id).in_slot && free <= value(id).defined / 2) {
        value(id).in_slot = true;  // the kernel writes it there
        value(id).place = slot;
        continue;
      }
      const int level = std::max(id < 0 ? 0 : value(id).level, free);
      last_level_ = std::max(last_level_, level);
      stores_.push_back({id, o, slot, level});
      if (id >= 0 && !value(id).by_kernel && !value(id).in_slot && level == value(id).level) {
        value(id).in_slot = true;
        value(id).place = slot;
      }
    }
  }

  void use(int v, int stage) { value(v).last_use = std::max(value(v).last_use, stage); }

  void find_uses() {
    find_fused_tests();
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Value& v = value(id_of(i));
      operands(graph_.nodes[i], [&](int o) { use(o, v.defined); });
    }
    for (const Copy& c : copies_) use(c.input, 0);
    for (const Store& s : stores_)
      if (s.value >= 0) use(s.value, 2 * s.level);
    for (int v : narrow_from_)
      if (v >= 0) use(v, kEnd);
  }

  // A comparison that only chooses between values of its own level needs no result of its own.
  void find_fused_tests() {
    std::vector<int> uses(values_.size()), fusable(values_.size());
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      operands(n, [&](int o) { ++uses[static_cast<size_t>(o)]; });
      if (n.table < 0 && n.op == Op::where && !n.a.is_scalar() && value(n.a.id()).level == value(id_of(i)).level)
        ++fusable[static_cast<size_t>(n.a.id())];
    }
    for (const Operand& o : graph_.outputs)
      if (!o.is_scalar()) ++uses[static_cast<size_t>(o.id())];
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const auto v = static_cast<size_t>(id_of(i));
      const Node& n = graph_.nodes[i];
      fused_[v] = n.table < 0 && Expander::predicate(n.op) != 0xff && uses[v] == fusable[v] && uses[v] <= 2;
    }
  }

  // Gives a scratch array to every value that outlives its stage and has no slot, by the order of stages.
  void place_values() {
    std::vector<std::vector<int>> born(static_cast<size_t>(2 * last_level_ + 3));
    for (int v = 0; v < static_cast<int>(values_.size()); ++v) {
      Value& x = value(v);
      if (v < slots_) {
        if (!is_half(v))
          x.place = v;
        else if (x.last_use >= 0)
          born[0].push_back(v);
      } else if (!x.in_slot && (x.by_kernel || x.last_use > x.defined)) {
        born[static_cast<size_t>(x.defined + 1)].push_back(v);
      }
    }
    std::vector<int> free, held;
    for (size_t stage = 0; stage < born.size(); ++stage) {
      const int now = static_cast<int>(stage) - 1;
      for (size_t i = 0; i < held.size();) {
        if (value(held[i]).last_use < now) {
          free.push_back(value(held[i]).place);
          held[i] = held.back();
          held.pop_back();
        } else {
          ++i;
        }
      }
      for (int v : born[stage]) {
        if (free.empty()) free.push_back(slots_ + num_scratch_++);
        value(v).place = free.back();
        free.pop_back();
        held.push_back(v);
      }
    }
  }

  Home home(int place) const {
    if (place < slots_) return {Home::slot, static_cast<uint32_t>(place)};
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
    } else if (n.op == Op::where && !n.a.is_scalar() && fused_[static_cast<size_t>(n.a.id())]) {
      const Node& test = graph_.nodes[static_cast<size_t>(n.a.id() - slots_)];
      result = expand.select(Expander::predicate(test.op), operand(loop, expand, test.a), operand(loop, expand, test.b),
                             operand(loop, expand, n.b), operand(loop, expand, n.c));
    } else {
      uint16_t src[3] = {0, 0, 0};
      bool number[3] = {false, false, false};
      for (int k = 0; k < n.arity(); ++k) {
        src[k] = operand(loop, expand, n.operand(k));
        number[k] = is_number(n.operand(k));
      }
      result = expand.op(n.op, src, number);
    }
    loop.local[static_cast<size_t>(id)] = result;
  }

  void emit_segment(int level) {
    Loop loop{{}, std::vector<int>(values_.size(), -1)};
    Expander expand(loop.segment, target_);
    if (level == 0) {
      for (const Copy& c : copies_)
        loop.local[static_cast<size_t>(c.value)] = expand.copy(expand.at(home(value(c.input).place)));
      for (const auto& [scalar, id] : fills_)
        loop.local[static_cast<size_t>(id)] = expand.copy(operand(loop, expand, scalar));
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const int id = id_of(i);
      if (value(id).defined == 2 * level && !fused_[static_cast<size_t>(id)])
        emit_node(loop, expand, graph_.nodes[i], id);
    }
    Segment stores;  // only its code is used
    for (const Store& s : stores_)
      if (s.level == level)
        expand.store(s.value < 0 ? operand(loop, expand, s.scalar) : operand(loop, expand, Operand{u16(s.value)}),
                     {Home::slot, static_cast<uint32_t>(s.slot)});
    for (int v = slots_; v < static_cast<int>(values_.size()); ++v)
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
  int last_level_ = 0, num_scratch_ = 0;
  std::vector<Value> values_;
  std::vector<int> old_read_;  // the level up to which the old value of a slot is read
  std::vector<bool> fused_;
  std::vector<Copy> copies_;
  std::vector<std::pair<Operand, int>> fills_;
  std::vector<Store> stores_;
  std::vector<int> narrow_from_;  // value of each output that goes to a slot in half precision
  Stages out_;
};

}  // namespace

Stages cut(const Graph& graph, const DType* dtypes, Target target) { return Cutter(graph, dtypes, target).run(); }

}  // namespace nos::cpu::native
