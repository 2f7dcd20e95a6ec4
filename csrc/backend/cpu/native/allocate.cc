#include "allocate.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace nos::cpu::native {
namespace {

constexpr int kNever = std::numeric_limits<int>::max();

// Allocates in one pass over straight-line code. When registers run out, the value whose next use is furthest away
// loses its register (Belady), which is optimal except for the cost of stores.
class Allocator {
 public:
  Allocator(const ValueLoop& loop, int registers)
      : loop_(loop), values_(loop.values.size()), free_((uint64_t{1} << registers) - 1) {}

  RegisterLoop run() {
    list_uses();
    hoist();
    for (size_t at = 0; at < loop_.code.size(); ++at) translate(loop_.code[at], static_cast<int>(at));
    return std::move(out_);
  }

 private:
  // Where a value is, and where it is used.
  struct Residence {
    uint32_t first = 0, count = 0, next = 0;  // its `count` uses, from uses_[first] on
    int reg = -1;
    int spill = -1;  // the vector of the stack frame that it was spilled into
    bool hoisted = false;
  };

  const Home& home(uint16_t v) const { return loop_.values[v]; }

  void list_uses() {
    for (const ValueInstr& i : loop_.code)
      for (int k = 0; k < info(i.op).sources; ++k) ++values_[i.src[k]].count;
    uint32_t total = 0;
    for (Residence& v : values_) {
      v.first = v.next = total;
      total += v.count;
    }
    uses_.resize(total);
    for (size_t at = 0; at < loop_.code.size(); ++at) {
      const ValueInstr& i = loop_.code[at];
      for (int k = 0; k < info(i.op).sources; ++k) uses_[values_[i.src[k]].next++] = static_cast<int>(at);
    }
    for (Residence& v : values_) v.next = v.first;
  }

  // The first use of v after instruction `at`.
  int next_use(uint16_t v, int at) {
    Residence& x = values_[v];
    while (x.next < x.first + x.count && uses_[x.next] <= at) ++x.next;
    return x.next < x.first + x.count ? uses_[x.next] : kNever;
  }

  // The largest number of values that need a register at the same time, not counting uniform ones.
  int most_live() const {
    std::vector<int> change(loop_.code.size() + 2, 0);
    for (uint16_t v = 0; v < values_.size(); ++v) {
      const Residence& x = values_[v];
      if (home(v).uniform() || x.count == 0) continue;
      if (home(v).kind != Home::computed && x.count == 1) continue;  // its one use can read it from memory
      ++change[static_cast<size_t>(uses_[x.first])];
      --change[static_cast<size_t>(uses_[x.first + x.count - 1]) + 1];
    }
    for (size_t at = 0; at < loop_.code.size(); ++at) {  // computed values live from their definition on
      const ValueInstr& i = loop_.code[at];
      const Residence& x = values_[i.dst];
      if (i.op == VOp::store || home(i.dst).kind != Home::computed || x.count == 0) continue;
      ++change[at + 1];
      --change[static_cast<size_t>(uses_[x.first])];
    }
    int live = 0, most = 0;
    for (int c : change) most = std::max(most, live += c);
    return most;
  }

  // Keeps uniform values in registers for the whole loop, as many as the loop's other values leave room for. Those that
  // would otherwise need a load of their own come first, then those that are used most.
  void hoist() {
    // The cost of a use that finds the value in memory: as the memory operand of an instruction, or by a load of its
    // own.
    constexpr int kMemoryOperand = 1, kOwnLoad = 3;
    std::vector<int> cost(values_.size(), 0);
    for (const ValueInstr& i : loop_.code)
      for (int k = 0; k < info(i.op).sources; ++k)
        if (home(i.src[k]).uniform())
          cost[i.src[k]] += info(i.op).memory >> k & 1 || info(i.op).commutes ? kMemoryOperand : kOwnLoad;
    std::vector<uint16_t> wanted;
    for (uint16_t v = 0; v < values_.size(); ++v)
      if (cost[v]) wanted.push_back(v);
    std::stable_sort(wanted.begin(), wanted.end(), [&](uint16_t a, uint16_t b) { return cost[a] > cost[b]; });
    int room = std::popcount(free_) - most_live() - 2;
    for (const uint16_t v : wanted) {
      if (room-- <= 0) break;
      Residence& x = values_[v];
      x.reg = take_free();
      x.hoisted = true;
      out_.hoisted.push_back({VOp::load, 0, static_cast<uint8_t>(x.reg), {kMemory, 0, 0, 0}, home(v)});
    }
  }

  int take_free() {
    const int r = std::countr_zero(free_);
    free_ &= free_ - 1;
    return r;
  }

  // Returns a register for a new value, and evicts another value if it must. Registers in `pinned_` keep theirs.
  int take(int at) {
    if (!free_) evict(at);
    return take_free();
  }

  void evict(int at) {
    int furthest = -1;
    uint16_t victim = 0;
    for (uint16_t v : resident_) {
      if (pinned_ >> values_[v].reg & 1) continue;
      // A value that has a copy in memory gives way before one that would have to be stored first.
      const int use = next_use(v, at - 1);
      const int distance = use == kNever ? kNever : 2 * use + (home(v).kind != Home::computed || values_[v].spill >= 0);
      if (distance > furthest) furthest = distance, victim = v;
    }
    Residence& x = values_[victim];
    if (home(victim).kind == Home::computed && x.spill < 0) {
      if (free_spills_.empty()) free_spills_.push_back(out_.spills++);
      x.spill = free_spills_.back();
      free_spills_.pop_back();
      out_.code.push_back({VOp::spill, 0, 0, {static_cast<uint8_t>(x.reg), 0, 0, 0}, spill_home(x)});
    }
    drop(victim);
  }

  void drop(uint16_t v) {
    free_ |= uint64_t{1} << values_[v].reg;
    values_[v].reg = -1;
    resident_.erase(std::find(resident_.begin(), resident_.end(), v));
  }

  static Home spill_home(const Residence& x) { return {Home::spill, static_cast<uint32_t>(x.spill)}; }
  Home memory_of(uint16_t v) const { return home(v).kind == Home::computed ? spill_home(values_[v]) : home(v); }

  void assign(uint16_t v, int reg) {
    values_[v].reg = reg;
    resident_.push_back(v);
  }

  // Whether source k of i, whose value is in memory, should become the memory operand of the instruction.
  bool fold(const ValueInstr& i, int k, int at) {
    const uint16_t v = i.src[k];
    if (home(v).is_half() || home(v).is_code()) return false;
    for (int j = 0; j < info(i.op).sources; ++j)
      if (j != k && i.src[j] == v) return false;
    if (i.op == VOp::select && k == 2 && home(v).kind == Home::slot)
      return false;  // the memory operand could not be masked in the tail
    return !free_ || home(v).uniform() || next_use(v, at) == kNever;
  }

  // Appends instruction i over registers, after the loads and spills that it needs.
  void translate(ValueInstr i, int at) {
    const VOpInfo op = info(i.op);
    pinned_ = 0;
    if (op.commutes && values_[i.src[0]].reg < 0 && values_[i.src[1]].reg >= 0) std::swap(i.src[0], i.src[1]);
    for (int k = 0; k < op.sources; ++k)
      if (values_[i.src[k]].reg >= 0) pinned_ |= uint64_t{1} << values_[i.src[k]].reg;
    RegisterInstr m{i.op, i.predicate, 0, {0, 0, 0, 0}, {}};
    int folded = -1;
    for (int k = op.sources - 1; k >= 0; --k)
      if (values_[i.src[k]].reg < 0 && folded < 0 && (op.memory >> k & 1) && fold(i, k, at)) folded = k;
    for (int k = 0; k < op.sources; ++k) {
      Residence& x = values_[i.src[k]];
      if (k == folded) {
        m.src[k] = kMemory;
        m.memory = memory_of(i.src[k]);
        continue;
      }
      if (x.reg < 0) {
        const Home from = memory_of(i.src[k]);
        const int reg = take(at);
        out_.code.push_back({VOp::load, 0, static_cast<uint8_t>(reg), {kMemory, 0, 0, 0}, from});
        assign(i.src[k], reg);
      }
      pinned_ |= uint64_t{1} << x.reg;
      m.src[k] = static_cast<uint8_t>(x.reg);
    }
    for (int k = 0; k < op.sources; ++k)  // a source that is not used again leaves its register to the result
      if (Residence& x = values_[i.src[k]]; x.reg >= 0 && !x.hoisted && next_use(i.src[k], at) == kNever)
        drop(i.src[k]);
    if (i.op == VOp::store) {
      m.memory = home(i.dst);
    } else {
      m.dst = static_cast<uint8_t>(take(at + 1));
      assign(i.dst, m.dst);
      if (values_[i.dst].count == 0) drop(i.dst);
    }
    // Freed only now: the spills above must not overwrite a stack vector that this instruction reads
    for (int k = 0; k < op.sources; ++k)
      if (Residence& x = values_[i.src[k]]; x.spill >= 0 && next_use(i.src[k], at) == kNever) {
        free_spills_.push_back(x.spill);
        x.spill = -1;
      }
    out_.code.push_back(m);
  }

  const ValueLoop& loop_;
  std::vector<Residence> values_;
  std::vector<int> uses_;
  uint64_t free_, pinned_ = 0;
  std::vector<uint16_t> resident_;  // values in registers, except the hoisted ones
  std::vector<int> free_spills_;
  RegisterLoop out_;
};

}  // namespace

RegisterLoop allocate(const ValueLoop& loop, int registers) { return Allocator(loop, registers).run(); }

}  // namespace nos::cpu::native
