#include "graph.h"

#include <algorithm>
#include <limits>
#include <map>

namespace nos::cpu::native {
namespace {

constexpr size_t kMaxFactors = 4;
constexpr size_t kMaxTables = 16;  // of values that get one or are tried

// What is known of a value's range.
struct Range {
  enum Kind : uint8_t {
    any,
    pure,        // a product of sign() results
    linear,      // a pure value times at most one scalar, perhaps negated: scaling by a sign is exact
    determined,  // a function of one pure value and of scalars
  } kind = any;
  bool expensive = false;         // whether computing it from the sign product takes a kernel op
  std::vector<uint16_t> factors;  // the sign() results in the product, sorted
};

class Builder {
 public:
  explicit Builder(const Program& program)
      : program_(program),
        first_(program.first_instr_value()),
        ranges_(static_cast<size_t>(program.num_values())),
        needed_(ranges_.size()),
        renamed_(ranges_.size()) {
    out_.num_inputs = first_;
    out_.num_scalars = program.num_uniforms();
    out_.constants.assign(static_cast<size_t>(program.num_uniforms()) + 1, std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < program.constants().size(); ++i)
      out_.constants[static_cast<size_t>(program.first_constant()) + i] = static_cast<float>(program.constants()[i]);
    for (int v = 0; v < first_; ++v) renamed_[static_cast<size_t>(v)] = static_cast<uint16_t>(v);
  }

  Graph run() {
    const auto& code = program_.code();
    for (size_t pc = 0; pc < code.size(); ++pc) ranges_[static_cast<size_t>(first_) + pc] = range_of(code[pc], pc);
    for (Operand o : program_.outputs()) need(o);
    for (size_t pc = 0; pc < code.size(); ++pc)
      if (is_reduction(code[pc].op)) needed_[static_cast<size_t>(first_) + pc] = true;
    for (size_t pc = code.size(); pc-- > 0;) {
      const size_t v = static_cast<size_t>(first_) + pc;
      if (!needed_[v]) continue;
      if (takes_table(v)) {
        for (uint16_t f : ranges_[v].factors) needed_[f] = true;
      } else {
        for (int k = 0; k < code[pc].arity(); ++k) need(code[pc].operand(k));
      }
    }
    for (size_t pc = 0; pc < code.size(); ++pc)
      if (needed_[static_cast<size_t>(first_) + pc]) add_node(pc);
    for (Operand o : program_.outputs()) out_.outputs.push_back(rename(o));
    choose_quotients();
    return std::move(out_);
  }

 private:
  const Range* range(Operand o) const { return o.is_scalar() ? nullptr : &ranges_[static_cast<size_t>(o.id())]; }

  Range range_of(const Instr& i, size_t pc) const {
    Range r;
    if (info(i.op).domain == Domain::random || is_reduction(i.op)) return r;
    if (i.op == Op::sign) {
      r.kind = Range::pure;
      r.factors = {static_cast<uint16_t>(static_cast<size_t>(first_) + pc)};
      return r;
    }
    if (i.op == Op::mul) {
      const Range *a = range(i.a), *b = range(i.b);
      if (a && b && a->kind == Range::linear) std::swap(a, b);
      if (a && b && a->kind == Range::pure && (b->kind == Range::pure || b->kind == Range::linear) &&
          a->factors.size() + b->factors.size() <= kMaxFactors) {
        r.kind = b->kind;
        r.factors.resize(a->factors.size() + b->factors.size());
        std::merge(a->factors.begin(), a->factors.end(), b->factors.begin(), b->factors.end(), r.factors.begin());
        return r;
      }
      if (const Range* only = a ? (b ? nullptr : a) : b; only && only->kind == Range::pure) {
        r = *only;
        r.kind = Range::linear;
        return r;
      }
    }
    if (i.op == Op::neg && (range(i.a)->kind == Range::pure || range(i.a)->kind == Range::linear)) {
      r = *range(i.a);
      r.kind = Range::linear;
      return r;
    }
    r.kind = Range::determined;
    r.expensive = native_op(i.op).kind == NativeOp::kernel;
    bool first = true;
    for (int k = 0; k < i.arity(); ++k) {
      const Range* o = range(i.operand(k));
      if (!o) continue;
      if (o->kind == Range::any || (!first && o->factors != r.factors)) return Range{};
      r.factors = o->factors;
      r.expensive |= o->expensive;
      first = false;
    }
    return r;
  }

  // Whether value v, which is needed, gets a table.
  bool takes_table(size_t v) {
    if (ranges_[v].kind != Range::determined || !ranges_[v].expensive || tried_ == kMaxTables) return false;
    ++tried_;
    TableCalls table;
    places_.clear();
    chain(v, table);
    if (table.size() > kMaxTableCalls) return false;
    with_table_.emplace(v, std::move(table));
    return true;
  }

  void need(Operand o) {
    if (!o.is_scalar()) needed_[static_cast<size_t>(o.id())] = true;
  }

  Operand rename(Operand o) const { return o.is_scalar() ? o : Operand{renamed_[static_cast<size_t>(o.id())]}; }

  uint16_t append(const Node& n) {
    out_.nodes.push_back(n);
    return static_cast<uint16_t>(static_cast<size_t>(first_) + out_.nodes.size() - 1);
  }

  void add_node(size_t pc) {
    const Instr& i = program_.code()[pc];
    const size_t v = static_cast<size_t>(first_) + pc;
    if (const auto found = with_table_.find(v); found != with_table_.end()) {
      out_.tables.push_back(std::move(found->second));
      const auto number = static_cast<int16_t>(out_.tables.size() - 1);
      renamed_[v] = append({Op{}, Operand{product(ranges_[v].factors)}, {}, {}, number});
      return;
    }
    Node n{i.op, rename(i.a), {}, {}};
    if (i.arity() > 1) n.b = rename(i.b);
    n.c = info(i.op).domain == Domain::random || i.arity() < 3 ? i.c : rename(i.c);  // of a random op, c is the site
    renamed_[v] = append(n);
    if (ranges_[v].kind == Range::pure) products_.emplace(ranges_[v].factors, renamed_[v]);
  }

  // A division by a scalar need not use the divider (Expander::quotient). It then takes more instructions, whose time
  // is hidden only while the divider is busy with other nodes: it takes two of those for each such division.
  // docs/native.md has the measurements.
  void choose_quotients() {
    constexpr int kOthersEach = 2;
    std::vector<Node*> by_scalar;
    int others = 0;
    for (Node& n : out_.nodes) {
      if (n.table >= 0) continue;
      if (n.op == Op::div && !n.a.is_scalar() && n.b.is_scalar())
        by_scalar.push_back(&n);
      else
        others += n.op == Op::div || n.op == Op::sqrt ? 1 : n.op == Op::rsqrt ? 2 : 0;
    }
    for (Node* n : by_scalar) {
      if ((others -= kOthersEach) < 0) break;
      const auto divisor = static_cast<uint16_t>(n->b.id());
      const auto known = std::find(out_.divisors.begin(), out_.divisors.end(), divisor);
      n->divisor = static_cast<int16_t>(known - out_.divisors.begin());
      if (known == out_.divisors.end()) out_.divisors.push_back(divisor);
    }
  }

  // Returns the value that is the product of these signs, and appends it if it is new.
  uint16_t product(const std::vector<uint16_t>& factors) {
    if (const auto known = products_.find(factors); known != products_.end()) return known->second;
    const std::vector<uint16_t> rest(factors.begin(), factors.end() - 1);
    const uint16_t v = append({Op::mul, Operand{product(rest)}, Operand{renamed_[factors.back()]}, {}});
    products_.emplace(factors, v);
    return v;
  }

  // Appends the calls that compute value v from its sign product. Returns where v lies among their results. It gives
  // up where there are too many of them.
  uint16_t chain(size_t v, TableCalls& table) {
    const Range& r = ranges_[v];
    if (r.kind == Range::pure || table.size() > kMaxTableCalls) return 0;
    if (const auto known = places_.find(v); known != places_.end()) return known->second;
    const Instr& i = program_.code()[v - static_cast<size_t>(first_)];
    if (i.op == Op::mul && r.kind == Range::linear && range(i.a) && range(i.b))  // the sign product has this factor
      return chain(static_cast<size_t>((range(i.a)->kind == Range::linear ? i.a : i.b).id()), table);
    KernelCall call{KernelCall::Kind::map, i.op, 0, 0, 0, {0, 0, 0}};
    for (int k = 0; k < i.arity(); ++k) {
      const Operand o = i.operand(k);
      if (o.is_scalar()) call.scalars |= static_cast<uint8_t>(1 << k);
      call.arg[k] =
          o.is_scalar() ? static_cast<uint16_t>(kScalarPlace + o.id()) : chain(static_cast<size_t>(o.id()), table);
    }
    call.dst = static_cast<uint16_t>(table.size() + 1);
    table.push_back(call);
    return places_[v] = call.dst;
  }

  const Program& program_;
  const int first_;
  std::vector<Range> ranges_;
  std::vector<bool> needed_;
  std::vector<uint16_t> renamed_;  // program value -> graph value
  std::map<size_t, TableCalls> with_table_;
  size_t tried_ = 0;
  std::map<size_t, uint16_t> places_;  // where the calls of the current table leave each value that they compute
  std::map<std::vector<uint16_t>, uint16_t> products_;
  Graph out_;
};

}  // namespace

Graph make_graph(const Program& program) { return Builder(program).run(); }

Graph scale_gradient(const Graph& graph) {
  Graph out = graph;
  const auto scaled = static_cast<uint16_t>(graph.num_inputs);  // the new first node; all others move up by one
  const auto rename = [&](Operand& o) {
    if (o.is_scalar()) return;
    if (o.id() == bytecode::kG)
      o.bits = scaled;
    else if (o.id() >= graph.num_inputs)
      ++o.bits;
  };
  bool used = false;
  for (Node& n : out.nodes)
    for (int k = 0; k < n.arity(); ++k) {
      Operand& o = n.operand(k);
      used |= !o.is_scalar() && o.id() == bytecode::kG;
      rename(o);
    }
  for (Operand& o : out.outputs) {
    used |= !o.is_scalar() && o.id() == bytecode::kG;
    rename(o);
  }
  if (!used) return graph;
  const Operand factor{static_cast<uint16_t>(bytecode::kScalarBit | graph.num_scalars)};
  out.nodes.insert(out.nodes.begin(), {Op::mul, Operand{bytecode::kG}, factor, {}});
  return out;
}

}  // namespace nos::cpu::native
