#include "allocate.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace nos::cpu::native {
namespace {

constexpr int kNever = std::numeric_limits<int>::max();

// One pass over straight-line code. When registers run out, the value whose next use is furthest away gives up its own
// (Belady), which is optimal up to the cost of stores.
class Allocator {
 public:
  Allocator(const Segment& segment, int registers)
      : segment_(segment), values_(segment.values.size()), free_((uint64_t{1} << registers) - 1) {}

  Body run() {
    list_uses();
    hoist();
    for (size_t at = 0; at < segment_.code.size(); ++at) place(segment_.code[at], static_cast<int>(at));
    return std::move(body_);
  }

 private:
  struct Value {
    uint32_t first = 0, count = 0, next = 0;  // its uses in uses_
    int reg = -1;
    int spill = -1;  // its vector in the stack frame
    bool hoisted = false;
  };

  const Home& home(uint16_t v) const { return segment_.values[v]; }

  void list_uses() {
    for (const VInstr& i : segment_.code)
      for (int k = 0; k < info(i.op).sources; ++k) ++values_[i.src[k]].count;
    uint32_t total = 0;
    for (Value& v : values_) {
      v.first = v.next = total;
      total += v.count;
    }
    uses_.resize(total);
    for (size_t at = 0; at < segment_.code.size(); ++at) {
      const VInstr& i = segment_.code[at];
      for (int k = 0; k < info(i.op).sources; ++k) uses_[values_[i.src[k]].next++] = static_cast<int>(at);
    }
    for (Value& v : values_) v.next = v.first;
  }

  // The first use of v after instruction `at`.
  int next_use(uint16_t v, int at) {
    Value& x = values_[v];
    while (x.next < x.first + x.count && uses_[x.next] <= at) ++x.next;
    return x.next < x.first + x.count ? uses_[x.next] : kNever;
  }

  // Keeps uniform values in registers for the whole loop, as many as the body leaves over: first those that would need
  // a load of their own, then those used most.
  void hoist() {
    std::vector<int> change(segment_.code.size() + 2, 0);
    for (uint16_t v = 0; v < values_.size(); ++v) {
      const Value& x = values_[v];
      if (home(v).uniform() || x.count == 0) continue;
      if (home(v).kind != Home::computed && x.count == 1) continue;  // a memory operand
      ++change[static_cast<size_t>(uses_[x.first])];
      --change[static_cast<size_t>(uses_[x.first + x.count - 1]) + 1];
    }
    for (size_t at = 0; at < segment_.code.size(); ++at) {  // computed values live from their definition on
      const VInstr& i = segment_.code[at];
      const Value& x = values_[i.dst];
      if (i.op == V::store || home(i.dst).kind != Home::computed || x.count == 0) continue;
      ++change[at + 1];
      --change[static_cast<size_t>(uses_[x.first])];
    }
    int live = 0, most = 0;
    for (int c : change) most = std::max(most, live += c);
    int room = std::popcount(free_) - most - 2;
    std::vector<std::pair<int, uint16_t>> wanted;
    std::vector<int> weight(values_.size(), 0);
    for (const VInstr& i : segment_.code)
      for (int k = 0; k < info(i.op).sources; ++k)
        if (home(i.src[k]).uniform()) weight[i.src[k]] += info(i.op).memory >> k & 1 || info(i.op).commutes ? 1 : 3;
    for (uint16_t v = 0; v < values_.size(); ++v)
      if (weight[v]) wanted.push_back({-weight[v], v});
    std::stable_sort(wanted.begin(), wanted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [w, v] : wanted) {
      if (room-- <= 0) break;
      Value& x = values_[v];
      x.reg = take_free();
      x.hoisted = true;
      body_.hoisted.push_back({V::load, 0, static_cast<uint8_t>(x.reg), {kMemory, 0, 0, 0}, home(v)});
    }
  }

  int take_free() {
    const int r = std::countr_zero(free_);
    free_ &= free_ - 1;
    return r;
  }

  // A register for a new value; evicts if it must. Registers in `pinned_` stay.
  int take(int at) {
    if (!free_) evict(at);
    return take_free();
  }

  void evict(int at) {
    int furthest = -1;
    uint16_t victim = 0;
    for (uint16_t v : resident_) {
      if (pinned_ >> values_[v].reg & 1) continue;
      // A value that can be loaded again for nothing gives way before one that would have to be stored.
      const int use = next_use(v, at - 1);
      const int distance = use == kNever ? kNever : 2 * use + (home(v).kind != Home::computed || values_[v].spill >= 0);
      if (distance > furthest) furthest = distance, victim = v;
    }
    Value& x = values_[victim];
    if (home(victim).kind == Home::computed && x.spill < 0) {
      if (free_spills_.empty()) free_spills_.push_back(body_.spills++);
      x.spill = free_spills_.back();
      free_spills_.pop_back();
      body_.code.push_back({V::spill, 0, 0, {static_cast<uint8_t>(x.reg), 0, 0, 0}, spill_home(x)});
    }
    drop(victim);
  }

  void drop(uint16_t v) {
    free_ |= uint64_t{1} << values_[v].reg;
    values_[v].reg = -1;
    resident_.erase(std::find(resident_.begin(), resident_.end(), v));
  }

  static Home spill_home(const Value& x) { return {Home::spill, static_cast<uint32_t>(x.spill)}; }
  Home memory_of(uint16_t v) const { return home(v).kind == Home::computed ? spill_home(values_[v]) : home(v); }

  void assign(uint16_t v, int reg) {
    values_[v].reg = reg;
    resident_.push_back(v);
  }

  // Whether source k of i, which is in memory, should be the instruction's memory operand.
  bool fold(const VInstr& i, int k, int at) {
    const uint16_t v = i.src[k];
    if (home(v).is_half()) return false;
    for (int j = 0; j < info(i.op).sources; ++j)
      if (j != k && i.src[j] == v) return false;
    if (i.op == V::select && k == 2 && home(v).kind == Home::slot) return false;  // needs the mask register of the tail
    return !free_ || home(v).uniform() || next_use(v, at) == kNever;
  }

  void place(VInstr i, int at) {
    const VInfo op = info(i.op);
    pinned_ = 0;
    if (op.commutes && values_[i.src[0]].reg < 0 && values_[i.src[1]].reg >= 0) std::swap(i.src[0], i.src[1]);
    for (int k = 0; k < op.sources; ++k)
      if (values_[i.src[k]].reg >= 0) pinned_ |= uint64_t{1} << values_[i.src[k]].reg;
    MInstr m{i.op, i.predicate, 0, {0, 0, 0, 0}, {}};
    int folded = -1;
    for (int k = op.sources - 1; k >= 0; --k)
      if (values_[i.src[k]].reg < 0 && folded < 0 && (op.memory >> k & 1) && fold(i, k, at)) folded = k;
    for (int k = 0; k < op.sources; ++k) {
      Value& x = values_[i.src[k]];
      if (k == folded) {
        m.src[k] = kMemory;
        m.memory = memory_of(i.src[k]);
        continue;
      }
      if (x.reg < 0) {
        const Home from = memory_of(i.src[k]);
        const int reg = take(at);
        body_.code.push_back({V::load, 0, static_cast<uint8_t>(reg), {kMemory, 0, 0, 0}, from});
        assign(i.src[k], reg);
      }
      pinned_ |= uint64_t{1} << x.reg;
      m.src[k] = static_cast<uint8_t>(x.reg);
    }
    for (int k = 0; k < op.sources; ++k)  // the result may take the register of a source that dies here
      if (Value& x = values_[i.src[k]]; x.reg >= 0 && !x.hoisted && next_use(i.src[k], at) == kNever) drop(i.src[k]);
    if (i.op == V::store) {
      m.memory = home(i.dst);
    } else {
      m.dst = static_cast<uint8_t>(take(at + 1));
      assign(i.dst, m.dst);
      if (values_[i.dst].count == 0) drop(i.dst);
    }
    for (int k = 0; k < op.sources; ++k)  // but no value may be spilled into a stack vector that this instruction reads
      if (Value& x = values_[i.src[k]]; x.spill >= 0 && next_use(i.src[k], at) == kNever) {
        free_spills_.push_back(x.spill);
        x.spill = -1;
      }
    body_.code.push_back(m);
  }

  const Segment& segment_;
  std::vector<Value> values_;
  std::vector<int> uses_;
  uint64_t free_, pinned_ = 0;
  std::vector<uint16_t> resident_;  // values in registers, but for the hoisted ones
  std::vector<int> free_spills_;
  Body body_;
};

}  // namespace

Body allocate(const Segment& segment, int registers) { return Allocator(segment, registers).run(); }

}  // namespace nos::cpu::native
