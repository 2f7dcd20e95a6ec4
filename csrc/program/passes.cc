#include "passes.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "analysis.h"

namespace nos {
namespace {

constexpr int kNone = -1;

Op op_of(Fold fold) { return fold == Fold::sum ? Op::sum : fold == Fold::dot ? Op::dot : Op::max_abs; }

}  // namespace

Fold fold_of(Op op) {
  switch (static_cast<ReduceOp>(op)) {
    case ReduceOp::sum:
    case ReduceOp::mean:
    case ReduceOp::global_sum:
      return Fold::sum;
    case ReduceOp::norm:
    case ReduceOp::rms:
    case ReduceOp::dot:
    case ReduceOp::global_norm:
    case ReduceOp::global_dot:
      return Fold::dot;
    case ReduceOp::max_abs:
      return Fold::max_abs;
  }
  throw std::logic_error("no fold for op " + std::string(info(op).name));
}

GlobalKey global_key(const void* program, uint32_t slice, const Pass& pass, const Reduced& reduced) {
  const auto& code = pass.body.code();
  int seen = -1;
  const Instr& i =
      *std::ranges::find_if(code, [&](const Instr& i) { return is_reduction(i.op) && ++seen == reduced.fold; });
  if (i.a.id() < bytecode::kFirstState && (i.arity() == 1 || i.b.id() < bytecode::kFirstState))
    return {slice, nullptr, static_cast<int>(reduced.op), i.a.bits, i.b.bits};
  return {slice, program, reduced.id, 0, 0};
}

uint32_t number_slots(std::span<const Program* const> programs) {
  uint32_t slots = 0;
  for (const Program* p : programs)
    for (int s = 0; s < p->num_states(); ++s) slots |= uint32_t{p->is_per_tensor(s)} << (bytecode::kFirstState + s);
  for (size_t k = 0; slots && k < programs.size(); ++k)
    for (int s = 0; s < programs[k]->num_states(); ++s)
      if ((slots >> (bytecode::kFirstState + s) & 1) && !programs[k]->is_per_tensor(s))
        throw std::invalid_argument("programs[" + std::to_string(k) + "] keeps state " + std::to_string(s) +
                                    " for every element and another program keeps it as one number per tensor; make "
                                    "one call for each kind");
  return slots;
}

// Finds out in which pass each instruction can run first, and writes the bodies.
class Passes::Builder {
 public:
  Builder(const Program& program, Passes& out)
      : program_(program), out_(out), first_value_(program.first_instr_value()), first_id_(program.num_scalars()) {
    number();
    find_ready();
  }

  void build(bool early) {
    std::vector<bool> written(static_cast<size_t>(program_.num_states()), early);
    while (!try_build(written)) out_.passes.clear();
  }

 private:
  struct Place {
    bool tensor;
    int id;     // value id, or id among the uniforms
    int ready;  // the first pass in which the value can be computed, or read if it is a tensor scalar
  };

  void number() {
    out_.num_scalars = program_.num_scalars();
    out_.num_uniforms = program_.num_uniforms();
    int id = first_id_;
    for (int s = 0; s < program_.num_states(); ++s)
      if (program_.is_per_tensor(s)) {
        out_.per_tensor.push_back(s);
        out_.per_tensor_new.push_back(program_.outputs()[static_cast<size_t>(s) + 1]);
        ++id;
      }
    int value = first_value_;
    for (const Instr& i : program_.code()) {
      const bool tensor = program_.is_tensor_instr(i);
      places_.push_back({tensor, tensor ? id++ : value++, 0});
      (tensor ? instr_of_id_ : instr_of_value_).push_back(places_.size() - 1);
    }
    first_instr_id_ = first_id_ + static_cast<int>(out_.per_tensor.size());
  }

  // The instruction that defines an operand, or kNone for inputs and scalars.
  int definition(Operand o) const {
    if (!o.is_scalar())
      return o.id() < first_value_ ? kNone
                                   : static_cast<int>(instr_of_value_[static_cast<size_t>(o.id() - first_value_)]);
    return o.id() < first_instr_id_ ? kNone
                                    : static_cast<int>(instr_of_id_[static_cast<size_t>(o.id() - first_instr_id_)]);
  }
  int ready(Operand o) const {
    const int i = definition(o);
    return i == kNone ? 0 : places_[static_cast<size_t>(i)].ready;
  }

  void find_ready() {
    for (size_t pc = 0; pc < places_.size(); ++pc) {
      const Instr& i = program_.code()[pc];
      int when = 0;
      for (int k = 0; k < i.arity(); ++k) when = std::max(when, ready(i.operand(k)));
      places_[pc].ready = when + is_reduction(i.op);
    }
    mark_live();
    last_ = 0;
    for (size_t pc = 0; pc < places_.size(); ++pc) {
      // A number per tensor comes after the pass before, and needs none of its own.
      const int pass = places_[pc].tensor ? std::max(0, places_[pc].ready - 1) : places_[pc].ready;
      if (live_[pc]) last_ = std::max(last_, pass);
    }
  }

  void mark_live() {
    live_.assign(places_.size(), false);
    const auto need = [&](Operand o) {
      if (const int i = definition(o); i != kNone) live_[static_cast<size_t>(i)] = true;
    };
    for (const Operand o : program_.outputs()) need(o);
    for (size_t pc = places_.size(); pc-- > 0;)
      if (live_[pc])
        for (int k = 0; k < program_.code()[pc].arity(); ++k) need(program_.code()[pc].operand(k));
  }

  bool reduces_in(size_t pc, int pass) const {
    return live_[pc] && is_reduction(program_.code()[pc].op) && places_[pc].ready == pass + 1;
  }

  // The value that state s gets, if it is an instruction's.
  int new_value(int s) const {
    const Operand o = program_.outputs()[static_cast<size_t>(s) + 1];
    return o.is_scalar() ? kNone : definition(o);
  }

  // One pass as it is being written.
  struct Draft {
    std::vector<bool> needed;  // instructions
    std::vector<bool> read;    // inputs
  };

  // Whether instruction pc is the new value of a state that an earlier pass has written: its slot, or kNone.
  int slot_of(size_t pc, int pass) const {
    for (int s = 0; s < program_.num_states(); ++s)
      if (new_value(s) == static_cast<int>(pc) && written_in_[static_cast<size_t>(s)] < pass)
        return bytecode::kFirstState + s;
    return kNone;
  }

  Draft draft(int pass) const {
    Draft d{std::vector<bool>(places_.size()), std::vector<bool>(static_cast<size_t>(first_value_))};
    const auto need = [&](Operand o) {
      if (o.is_scalar()) return;
      const int i = definition(o);
      if (i == kNone)
        d.read[static_cast<size_t>(o.id())] = true;
      else if (slot_of(static_cast<size_t>(i), pass) == kNone)
        d.needed[static_cast<size_t>(i)] = true;
    };
    if (pass == last_) {
      need(program_.outputs()[0]);
      for (int s = 0; s < program_.num_states(); ++s)
        if (written_in_[static_cast<size_t>(s)] == last_ &&
            !keeps_its_slot(program_.outputs(), static_cast<size_t>(s) + 1))
          need(program_.outputs()[static_cast<size_t>(s) + 1]);
    }
    for (size_t pc = places_.size(); pc-- > 0;) {
      const bool reduces = reduces_in(pc, pass);
      if (d.needed[pc] || reduces)
        for (int k = 0; k < program_.code()[pc].arity(); ++k) need(program_.code()[pc].operand(k));
    }
    return d;
  }

  // Writes all passes. Where the old value of a state is read after a pass has written the new one, takes it out of
  // `early` and returns false.
  bool try_build(std::vector<bool>& early) {
    written_in_.assign(static_cast<size_t>(program_.num_states()), last_);
    out_.early.clear();
    std::vector<Draft> drafts;
    for (int pass = 0; pass <= last_; ++pass) {
      drafts.push_back(draft(pass));
      for (int s = 0; s < program_.num_states(); ++s) {
        const auto at = static_cast<size_t>(s);
        const bool gone = written_in_[at] < pass;
        if (gone && drafts.back().read[at + bytecode::kFirstState]) return early[at] = false;
        if (early[at] && !gone && pass < last_ && new_value(s) != kNone &&
            drafts.back().needed[static_cast<size_t>(new_value(s))])
          written_in_[at] = pass;
      }
    }
    for (int s = 0; s < program_.num_states(); ++s)
      if (written_in_[static_cast<size_t>(s)] < last_) out_.early.push_back(s);
    for (int pass = 0; pass <= last_; ++pass) out_.passes.push_back(write(pass, drafts[static_cast<size_t>(pass)]));
    for (size_t pc = 0; pc < places_.size(); ++pc)
      if (live_[pc] && places_[pc].tensor && !is_reduction(program_.code()[pc].op))
        after(places_[pc].ready).push_back({program_.code()[pc], places_[pc].id});
    return true;
  }

  std::vector<TensorInstr>& after(int ready) {
    return ready == 0 ? out_.before : out_.passes[static_cast<size_t>(ready) - 1].then;
  }

  Pass write(int pass, const Draft& draft) {
    Pass out{Program(), {}, {}, {}, false};
    Program& body = out.body;
    body.name_ = program_.name_;
    body.states_ = program_.states_;
    body.per_tensor_ = program_.per_tensor_;
    body.hypers_ = program_.hypers_;
    body.constants_ = program_.constants_;
    body.scalar_code_ = program_.scalar_code_;
    body.num_tensor_scalars_ = program_.num_tensor_scalars_;
    std::map<int, Operand> renamed;  // instruction -> value of the body
    const auto rename = [&](Operand o) {
      const int i = o.is_scalar() ? kNone : definition(o);
      if (i == kNone) return o;
      const int slot = slot_of(static_cast<size_t>(i), pass);
      return slot == kNone ? renamed.at(i) : Operand{static_cast<uint16_t>(slot)};
    };
    std::map<std::tuple<Fold, uint16_t, uint16_t>, int> folds;
    const auto next = [&] {
      return Operand{static_cast<uint16_t>(static_cast<size_t>(first_value_) + body.code_.size())};
    };
    for (size_t pc = 0; pc < places_.size(); ++pc) {
      Instr i = program_.code()[pc];
      const bool reduces = reduces_in(pc, pass);
      if (!draft.needed[pc] && !reduces) continue;
      const bool random = info(i.op).domain == Domain::random;
      i.a = rename(i.a);
      if (i.arity() > 1) i.b = rename(i.b);
      if (i.arity() > 2 && !random) i.c = rename(i.c);
      if (!reduces) {
        renamed[static_cast<int>(pc)] = next();
        body.code_.push_back(i);
        continue;
      }
      const Fold fold = fold_of(i.op);
      if (fold == Fold::dot && i.arity() == 1) i.b = i.a;
      const auto [known, is_new] = folds.try_emplace({fold, i.a.bits, i.b.bits}, static_cast<int>(out.folds.size()));
      if (is_new) {
        out.folds.push_back(fold);
        body.code_.push_back({op_of(fold), i.a, i.b, {}});
      }
      out.reduced.push_back({i.op, known->second, places_[pc].id});
      out.waits_for_all |= info(i.op).domain == Domain::global;
    }
    for (size_t k = 0; k < program_.outputs().size(); ++k) {
      const bool is_written =
          k == 0 ? pass == last_ : !program_.is_per_tensor(static_cast<int>(k) - 1) && written_in_[k - 1] == pass;
      body.outputs_.push_back(is_written ? rename(program_.outputs()[k])
                                         : Operand{static_cast<uint16_t>(slot_of_output(k))});
    }
    body.count();
    return out;
  }

  const Program& program_;
  Passes& out_;
  const int first_value_, first_id_;
  int first_instr_id_ = 0, last_ = 0;
  std::vector<Place> places_;  // of each instruction
  std::vector<bool> live_;
  std::vector<size_t> instr_of_value_, instr_of_id_;
  std::vector<int> written_in_;  // of each state: the pass that writes it
};

Passes::Passes(const Program& program, bool early) { Builder(program, *this).build(early); }

std::shared_ptr<const Passes> passes_of(const Program& program, bool early) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& kept = early ? program.kept.passes_early : program.kept.passes;
  if (!kept) kept = std::make_shared<const Passes>(program, early);
  return kept;
}

void evaluate(const std::vector<TensorInstr>& code, double* uniforms) {
  for (const TensorInstr& t : code) {
    const Instr& i = t.instr;
    const double a = uniforms[i.a.id()];
    const double b = i.arity() > 1 ? uniforms[i.b.id()] : 0;
    const double c = i.arity() > 2 ? uniforms[i.c.id()] : 0;
    uniforms[t.id] = scalar_op(i.op, a, b, c);
  }
}

}  // namespace nos
