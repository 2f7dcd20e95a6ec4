#include "source.h"

#include "../../../program/analysis.h"

namespace nos::cuda::jit {
namespace {

// The groups of four elements that a thread has in flight. Two hide the latency of memory with 16 warps on a
// multiprocessor. With two, float64 and long rules would run out of registers.
constexpr int kGroupsOfShort = 2, kGroupsOfLong = 1;
constexpr int kLong = 64;  // instructions

std::string num(int i) { return std::to_string(i); }

class Writer {
 public:
  Writer(const Program& program, const std::array<DType, kMaxSlots>& dtypes)
      : program_(program), dtypes_(dtypes), slots_(bytecode::kFirstState + program.num_states()), uses_(program) {}

  std::string run() {
    out_ += "namespace nos::cuda::jit {\nstruct Rule {\n";
    out_ += std::string("  using Value = ") + (wide() ? "double" : "float") + ";\n";
    out_ += "  static constexpr uint32_t kSlots = " + num(slots_) + ", kDraws = " + num(num_draws()) + ";\n";
    slots();
    scalars();
    draws();
    element();
    const int groups = wide() || num_live() > kLong ? kGroupsOfLong : kGroupsOfShort;
    out_ += "};\n}  // namespace nos::cuda::jit\n\nextern \"C\" __global__ void __launch_bounds__(" + num(kThreads) +
            ", 2) " + kKernelName + "(const __grid_constant__ nos::cuda::Launch launch) {\n" +
            "  nos::cuda::jit::run_block<nos::cuda::jit::Rule, " + num(kThreads) + ", " + num(groups) +
            ">(launch, blockIdx.x, threadIdx.x);\n}\n";
    return std::move(out_);
  }

 private:
  bool wide() const { return dtypes_[bytecode::kP] == DType::f64; }
  bool written(size_t k) const { return !keeps_its_slot(program_.outputs(), k); }
  bool is_read(int slot) const {
    // An output that keeps its slot counts as a read of it, but needs no load.
    int reads = uses_.reads[static_cast<size_t>(slot)];
    for (size_t k = 0; k < program_.outputs().size(); ++k) reads -= slot_of_output(k) == slot && !written(k);
    return reads > 0;
  }
  bool is_draw(const Instr& i) const { return info(i.op).domain == Domain::random; }

  template <class Visit>
  void live_code(const Visit& visit) const {
    for (size_t pc = 0; pc < program_.code().size(); ++pc)
      if (const int v = program_.first_instr_value() + static_cast<int>(pc); uses_.is_live(v))
        visit(program_.code()[pc], v);
  }

  int num_live() const {
    int n = 0;
    live_code([&](const Instr&, int) { ++n; });
    return n;
  }
  int num_draws() const {
    int n = 0;
    live_code([&](const Instr& i, int) { n += is_draw(i); });
    return n;
  }

  void slots() {
    std::string dtypes, read, written_to;
    std::vector<bool> writes(static_cast<size_t>(slots_));
    for (size_t k = 0; k < program_.outputs().size(); ++k) writes[static_cast<size_t>(slot_of_output(k))] = written(k);
    for (size_t s = 0; s < writes.size(); ++s) {
      const std::string comma = s ? ", " : "";
      dtypes += comma + num(static_cast<int>(dtypes_[s]));
      read += comma + (is_read(static_cast<int>(s)) ? "true" : "false");
      written_to += comma + (writes[s] ? "true" : "false");
    }
    out_ += "  static constexpr uint32_t kDtype[] = {" + dtypes + "};\n  static constexpr bool kRead[] = {" + read +
            "}, kWritten[] = {" + written_to + "};\n";
  }

  void scalars() {
    std::string list;
    for (size_t s = 0; s < uses_.scalar_is_read.size(); ++s) {
      if (!uses_.scalar_is_read[s]) continue;
      const std::string id = num(static_cast<int>(s));
      out_ += "  const Value s" + id + ";\n";
      list += (list.empty() ? " : s" : ", s") + id + "(row[" + id + "])";
    }
    out_ += "  NOS_HD explicit Rule([[maybe_unused]] const Value* row)" + list + " {}\n";
  }

  void draws() {
    out_ +=
        "  NOS_HD void draws([[maybe_unused]] uint64_t seed, [[maybe_unused]] uint32_t step, [[maybe_unused]] uint32_t "
        "tensor,\n                    [[maybe_unused]] uint64_t q, [[maybe_unused]] float (*u)[4]) const {\n";
    int n = 0;
    live_code([&](const Instr& i, int) {
      if (is_draw(i))
        out_ += std::string("    draw(") + (random(i, {}).normal ? "true" : "false") + ", seed, step, tensor, " +
                num(i.site()) + ", q, u[" + num(n++) + "]);\n";
    });
    out_ += "  }\n";
  }

  std::string text(Operand o) const { return (o.is_scalar() ? "s" : "v") + num(o.id()); }

  // A random op: whether its draw is normal (or else uniform), and its value as an expression of that draw, `draw`.
  struct Random {
    bool normal;
    std::string value;
  };
  Random random(const Instr& i, const std::string& draw) const {
    switch (static_cast<RandomOp>(i.op)) {
      case RandomOp::drop:
        return {false, draw + " < " + text(i.b) + " ? Value(0) : " + text(i.a)};
      case RandomOp::normal:
        return {true, draw + " * " + text(i.a)};
    }
    throw std::logic_error("no CUDA source for the random op " + std::string(info(i.op).name));
  }

  void element() {
    out_ +=
        "  template <class X>\n  NOS_HD void operator()([[maybe_unused]] Value factor, X& x, [[maybe_unused]] const "
        "float (*u)[4], uint32_t group,\n                         [[maybe_unused]] uint32_t lane) const {\n";
    for (int s = 0; s < slots_; ++s)
      if (is_read(s))
        out_ += "    const Value v" + num(s) + " = x[" + num(s) + "][group][lane]" +
                (s == bytecode::kG ? " * factor" : "") + ";\n";
    int n = 0;
    live_code([&](const Instr& i, int v) {
      out_ += "    const Value v" + num(v) + " = ";
      if (is_draw(i)) {
        out_ += random(i, "static_cast<Value>(u[" + num(n++) + "][lane])").value;
      } else {
        out_ += "math::" + std::string(info(i.op).name) + "<Value>(";
        for (int k = 0; k < i.arity(); ++k) out_ += (k ? ", " : "") + text(i.operand(k));
        out_ += ")";
      }
      out_ += ";\n";
    });
    for (size_t k = 0; k < program_.outputs().size(); ++k)
      if (written(k))
        out_ += "    x[" + num(slot_of_output(k)) + "][group][lane] = " + text(program_.outputs()[k]) + ";\n";
    out_ += "  }\n";
  }

  const Program& program_;
  const std::array<DType, kMaxSlots>& dtypes_;
  const int slots_;
  const Uses uses_;
  std::string out_;
};

}  // namespace

std::string source_of(const Program& program, const std::array<DType, kMaxSlots>& dtypes) {
  for (int s = 0; s < bytecode::kFirstState + program.num_states(); ++s)
    if (const DType d = dtypes[static_cast<size_t>(s)];
        is_quantized(d) || (d == DType::f64) != (dtypes[bytecode::kP] == DType::f64))
      return {};
  return Writer(program, dtypes).run();
}

}  // namespace nos::cuda::jit
