#include "program.h"

#include <algorithm>
#include <cstring>

#include "../ops/float_environment.h"
#include "names.h"
#include "scalar_code.h"

static_assert(std::endian::native == std::endian::little, "bytecode is little endian; add byte swaps for this target");

namespace nos {
namespace {

// A cursor over the bytes that checks bounds. Every attempt to read past the end is a BytecodeError.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <class T>
  T get(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  std::string text(size_t n, const char* what) {
    const uint8_t* at = take(n, what);
    return std::string(reinterpret_cast<const char*>(at), n);
  }
  size_t count(size_t limit, const char* what) {
    const size_t n = get<uint16_t>(what);
    if (n > limit)
      throw BytecodeError("bytecode: " + std::string(what) + " is " + std::to_string(n) + "; the limit is " +
                          std::to_string(limit));
    return n;
  }
  size_t left() const { return bytes_.size() - pos_; }

 private:
  const uint8_t* take(size_t n, const char* what) {
    if (n > left())
      throw BytecodeError("bytecode: ends inside " + std::string(what) + " (byte " + std::to_string(bytes_.size()) +
                          ")");
    const uint8_t* at = bytes_.data() + pos_;
    pos_ += n;
    return at;
  }
  std::span<const uint8_t> bytes_;
  size_t pos_ = 0;
};

Instr read_instr(Reader& in) {
  const auto op = in.get<uint8_t>("an instruction");
  const auto zero = in.get<uint8_t>("an instruction");
  if (op >= kNumOps) throw BytecodeError("bytecode: opcode " + std::to_string(op) + " does not exist");
  if (zero != 0) throw BytecodeError("bytecode: the second byte of an instruction must be 0");
  Instr i{static_cast<Op>(op), {}, {}, {}};
  for (Operand* o : {&i.a, &i.b, &i.c}) o->bits = in.get<uint16_t>("an instruction");
  return i;
}

}  // namespace

Program Program::parse(std::span<const uint8_t> bytes) {
  using namespace bytecode;
  Reader in(bytes);
  Program p;
  if (in.text(sizeof kMagic, "the magic number") != std::string(kMagic, sizeof kMagic))
    throw BytecodeError("bytecode: does not start with 'NOSP'; expected the .bytecode of a nos_ext.Program");
  const auto version = in.get<uint16_t>("the version");
  if (version != kElementwise && version != kWithReductions)
    throw BytecodeError("bytecode: version " + std::to_string(version) + "; this build reads versions " +
                        std::to_string(kElementwise) + " and " + std::to_string(kWithReductions) +
                        " (recompile the rule from its text)");
  p.has_tensor_scalars_ = version == kWithReductions;
  const size_t states = in.count(kMaxStates, "the number of states");
  const size_t hypers = in.count(kMaxHypers, "the number of hyperparameters");
  const size_t constants = in.count(kMaxConstants, "the number of constants");
  const size_t scalar_code = in.count(kMaxScalarCode, "the length of the scalar code");
  const size_t code = in.count(kMaxCode, "the length of the code");
  p.name_ = in.text(in.count(kMaxNameBytes, "the length of a name"), "the rule's name");
  for (size_t i = 0; i < states; ++i) {
    p.states_.push_back(in.text(in.count(kMaxNameBytes, "the length of a name"), "a state's name"));
    const auto per_tensor = p.has_tensor_scalars_ ? in.get<uint8_t>("a state") : uint8_t{0};
    if (per_tensor > 1)
      throw BytecodeError("bytecode: the flag of state " + quoted(p.states_.back()) + " is not 0 or 1");
    p.per_tensor_.push_back(per_tensor != 0);
  }
  for (size_t i = 0; i < hypers; ++i) {
    Hyper h;
    h.name = in.text(in.count(kMaxNameBytes, "the length of a name"), "a hyperparameter's name");
    const auto has_default = in.get<uint8_t>("a hyperparameter");
    if (has_default > 1)
      throw BytecodeError("bytecode: the default flag of hyperparameter " + quoted(h.name) + " is not 0 or 1");
    h.has_default = has_default != 0;
    h.value = in.get<double>("a hyperparameter");
    p.hypers_.push_back(std::move(h));
  }
  for (size_t i = 0; i < constants; ++i) p.constants_.push_back(in.get<double>("a constant"));
  for (size_t i = 0; i < scalar_code; ++i) p.scalar_code_.push_back(read_instr(in));
  for (size_t i = 0; i < code; ++i) p.code_.push_back(read_instr(in));
  for (size_t i = 0; i < 1 + states; ++i) p.outputs_.push_back(Operand{in.get<uint16_t>("the outputs")});
  if (in.left() != 0) throw BytecodeError("bytecode: " + std::to_string(in.left()) + " bytes too many at the end");
  p.count();
  p.verify();
  p.bytes_.assign(bytes.begin(), bytes.end());
  return p;
}

bool Program::is_tensor_instr(const Instr& i) const {
  if (is_reduction(i.op)) return true;
  if (info(i.op).domain == Domain::random) return false;
  bool any_tensor_scalar = false;
  for (int k = 0; k < i.arity(); ++k) {
    if (!i.operand(k).is_scalar()) return false;
    any_tensor_scalar |= i.operand(k).id() >= num_scalars();
  }
  return any_tensor_scalar;
}

// Fills the members that are derived from the others.
void Program::count() {
  const Operand total{static_cast<uint16_t>(bytecode::kScalarBit | bytecode::kTotal)};
  for (const auto* list : {&scalar_code_, &code_})
    for (const Instr& i : *list)
      for (int k = 0; k < i.arity(); ++k) uses_total_ |= i.operand(k) == total;
  for (const Operand o : outputs_) uses_total_ |= o == total;
  num_values_ = first_instr_value() + static_cast<int>(code_.size());
  for (const Instr& i : code_) {
    uses_random_ |= info(i.op).domain == Domain::random;
    has_globals_ |= info(i.op).domain == Domain::global;
    cost_ += info(i.op).cost;
  }
  if (!has_tensor_scalars_) return;
  num_tensor_scalars_ = static_cast<int>(std::ranges::count(per_tensor_, true));
  for (const Instr& i : code_)
    if (is_tensor_instr(i)) {
      ++num_tensor_scalars_;
      --num_values_;
    }
}

std::vector<uint8_t> Program::identity() const {
  // header up to the name's length, then everything after the name
  constexpr size_t name_length_at = sizeof bytecode::kMagic + 6 * sizeof(uint16_t);
  std::vector<uint8_t> out(bytes_.begin(), bytes_.begin() + name_length_at);
  out.insert(out.end(), bytes_.begin() + static_cast<ptrdiff_t>(name_length_at + sizeof(uint16_t) + name_.size()),
             bytes_.end());
  return out;
}

void Program::eval_scalars(double step, double total_steps, std::span<const double> hypers,
                           std::span<double> slots) const {
  const FloatEnvironment environment;
  eval_scalars_here(step, total_steps, hypers, slots);
}

NOS_NOINLINE void Program::eval_scalars_here(double step, double total_steps, std::span<const double> hypers,
                                             std::span<double> slots) const {
  size_t next = 0;
  slots[next++] = step;
  slots[next++] = total_steps;
  for (double h : hypers) slots[next++] = h;
  for (double c : constants_) slots[next++] = c;
  for (const Instr& i : scalar_code_) {
    const double a = slots[static_cast<size_t>(i.a.id())];
    const double b = i.arity() > 1 ? slots[static_cast<size_t>(i.b.id())] : 0;
    const double c = i.arity() > 2 ? slots[static_cast<size_t>(i.c.id())] : 0;
    slots[next++] = scalar_op(i.op, a, b, c);
  }
}

}  // namespace nos
