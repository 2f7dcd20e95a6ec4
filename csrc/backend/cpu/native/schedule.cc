#include "schedule.h"

#include <algorithm>

#include "../../../program/analysis.h"
#include "../storage.h"

namespace nos::cpu::native {
namespace {

constexpr int kEnd = 1 << 20;  // a phase after all others

bool is_kernel(const Node& n) { return n.table < 0 && native_op(n.op).kind == NativeOp::kernel; }
bool is_comparison(const Node& n) { return n.table < 0 && native_op(n.op).kind == NativeOp::compare; }

class Scheduler {
 public:
  Scheduler(const Graph& graph, const DType* dtypes, Rounding rounding, bool loop_converts)
      : graph_(graph), slots_(graph.num_inputs), old_read_(static_cast<size_t>(slots_), 0) {
    out_.values.resize(static_cast<size_t>(slots_) + graph.nodes.size());
    const bool converts = loop_converts && std::none_of(graph.nodes.begin(), graph.nodes.end(), is_kernel);
    for (int s = 0; s < slots_; ++s) {
      const bool draws = s != bytecode::kG && is_stochastic(rounding, s, dtypes[s]);
      out_.converted.push_back(is_quantized(dtypes[s]) || (is_half(dtypes[s]) && (draws || !converts)));
      out_.decoded.push_back(is_quantized(dtypes[s]) && converts && slots_ <= kMostSlotsWithCodes);
      holds_fp32_.push_back(dtypes[s] == DType::f32);
    }
  }

  Schedule run() {
    find_levels();
    add_copies();
    place_stores();
    find_uses();
    place_values();
    return std::move(out_);
  }

 private:
  ScheduledValue& value(int v) { return out_.values[static_cast<size_t>(v)]; }
  int id_of(size_t node) const { return slots_ + static_cast<int>(node); }
  bool is_fold(int v) const {
    const auto node = static_cast<size_t>(v - slots_);
    return node < graph_.nodes.size() && graph_.nodes[node].table < 0 && is_reduction(graph_.nodes[node].op);
  }
  bool is_converted(int slot) const { return out_.converted[static_cast<size_t>(slot)]; }
  // Whether a slot has the values that kernels read and write. In half precision only loops read and write it.
  bool holds_fp32(int slot) const { return holds_fp32_[static_cast<size_t>(slot)]; }

  template <class Visit>
  static void operands(const Node& n, const Visit& visit) {
    for (int k = 0; k < n.arity(); ++k)
      if (!n.operand(k).is_scalar()) visit(n.operand(k).id());
  }

  void find_levels() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      ScheduledValue& v = value(id_of(i));
      operands(n, [&](int o) { v.level = std::max(v.level, value(o).level); });
      v.by_kernel = is_kernel(n);
      v.defined = 2 * v.level + (v.by_kernel ? 1 : 0);
      out_.last_level = std::max(out_.last_level, v.level);
      if (v.by_kernel) ++v.level;  // its result is a value of the next level
      const int read = v.by_kernel ? v.level : v.defined / 2;
      operands(n, [&](int o) {
        if (o < slots_) old_read_[static_cast<size_t>(o)] = std::max(old_read_[static_cast<size_t>(o)], read);
      });
    }
  }

  // Adds a value that no node computes. It is defined in the loop of level 0.
  int add_value() {
    out_.values.emplace_back().defined = 0;
    return static_cast<int>(out_.values.size()) - 1;
  }

  void add_copies() {
    for (const int input : inputs_that_move(graph_.outputs, slots_)) out_.copies.push_back({input, add_value()});
  }

  // Decides what writes each output into its slot: the kernel that computes it, a kernel that narrows it at the end, or
  // a store. A store stands in the first loop where the value is known and the slot's old value is not read any more.
  void place_stores() {
    out_.narrow_from.assign(graph_.outputs.size(), -1);
    for (size_t k = 0; k < graph_.outputs.size(); ++k) {
      const Operand o = graph_.outputs[k];
      const int slot = slot_of_output(k);
      int id = -1;
      if (!o.is_scalar()) {
        if (keeps_its_slot(graph_.outputs, k)) continue;
        id = o.id();
        for (const auto& [input, copy] : out_.copies)
          if (input == o.id()) id = copy;
      }
      if (is_converted(slot)) {
        if (id < 0) {  // a scalar: as a value of its own
          id = add_value();
          out_.fills.push_back({o, id});
        } else if (id < slots_ && !is_converted(id) && !holds_fp32(id)) {  // the gradient: as what a loop has read
          out_.copies.push_back({id, add_value()});
          id = out_.copies.back().second;
        }
        out_.narrow_from[k] = id;
        continue;
      }
      const int free = old_read_[static_cast<size_t>(slot)];
      if (id >= 0 && value(id).by_kernel && !value(id).in_slot && free <= value(id).defined / 2) {
        value(id).in_slot = true;  // the kernel writes its result there
        value(id).place = slot;
        continue;
      }
      const int level = std::max(id < 0 ? 0 : value(id).level, free);
      out_.last_level = std::max(out_.last_level, level);
      out_.stores.push_back({id, o, slot, level});
      if (id >= 0 && !value(id).by_kernel && !value(id).in_slot && level == value(id).level && holds_fp32(slot)) {
        value(id).in_slot = true;
        value(id).place = slot;
      }
    }
  }

  void use(int v, int phase) { value(v).last_use = std::max(value(v).last_use, phase); }

  void find_uses() {
    find_absorbed_comparisons();
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const ScheduledValue& v = value(id_of(i));
      operands(graph_.nodes[i], [&](int o) { use(o, v.defined); });
    }
    for (const auto& copy : out_.copies) use(copy.first, 0);
    for (const Store& s : out_.stores)
      if (s.value >= 0) use(s.value, 2 * s.level);
    for (int v : out_.narrow_from)
      if (v >= 0) use(v, kEnd);
  }

  // A comparison needs no result of its own if it only decides between values of its own level.
  void find_absorbed_comparisons() {
    std::vector<int> uses(out_.values.size()), choices(out_.values.size());
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      operands(n, [&](int o) { ++uses[static_cast<size_t>(o)]; });
      if (n.table < 0 && n.op == Op::where && !n.a.is_scalar() && value(n.a.id()).level == value(id_of(i)).level)
        ++choices[static_cast<size_t>(n.a.id())];
    }
    for (const Operand& o : graph_.outputs)
      if (!o.is_scalar()) ++uses[static_cast<size_t>(o.id())];
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const auto v = static_cast<size_t>(id_of(i));
      out_.values[v].absorbed = is_comparison(graph_.nodes[i]) && uses[v] == choices[v] && uses[v] <= 2;
    }
  }

  // Gives a scratch array to every value that outlives its phase and has no slot. It goes through the phases in order
  // and uses arrays again.
  void place_values() {
    std::vector<std::vector<int>> born(static_cast<size_t>(2 * out_.last_level + 3));  // born[i]: in phase i - 1
    for (int v = 0; v < static_cast<int>(out_.values.size()); ++v) {
      ScheduledValue& x = value(v);
      if (v < slots_) {
        if (!is_converted(v))
          x.place = v;
        else if (x.last_use >= 0)
          born[0].push_back(v);
      } else if (!x.in_slot && (x.last_use > x.defined || (x.by_kernel && !is_fold(v)))) {
        born[static_cast<size_t>(x.defined + 1)].push_back(v);
      }
    }
    std::vector<int> free, held;
    for (size_t i = 0; i < born.size(); ++i) {
      const int now = static_cast<int>(i) - 1;
      for (size_t h = 0; h < held.size();) {
        if (value(held[h]).last_use < now) {
          free.push_back(value(held[h]).place);
          held[h] = held.back();
          held.pop_back();
        } else {
          ++h;
        }
      }
      for (int v : born[i]) {
        if (free.empty()) free.push_back(slots_ + out_.num_scratch++);
        value(v).place = free.back();
        free.pop_back();
        held.push_back(v);
      }
    }
  }

  const Graph& graph_;
  const int slots_;
  std::vector<int> old_read_;     // of each slot: the last level that reads its old value
  std::vector<bool> holds_fp32_;  // of each slot
  Schedule out_;
};

}  // namespace

Schedule make_schedule(const Graph& graph, const DType* dtypes, Rounding rounding, bool loop_converts) {
  return Scheduler(graph, dtypes, rounding, loop_converts).run();
}

}  // namespace nos::cpu::native
