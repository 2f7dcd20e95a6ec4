#include "native.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "../kernel_call.h"
#include "assemble.h"
#include "expand.h"

namespace nos::cpu::native {
namespace {

struct Tier {
  bool on;
  Target target;
  const char* status;
};

Tier choose() {
#if defined(__x86_64__) && defined(__unix__)
  const char* wanted = std::getenv("NOS_NATIVE");
  if (wanted && std::strcmp(wanted, "0") == 0) return {false, {}, "off: NOS_NATIVE=0"};
  if (!__builtin_cpu_supports("bmi2")) return {false, {}, "off: needs BMI2"};
  // The interpreter's choice decides, so that NOS_ISA holds for both tiers.
  const bool avx512 = std::strcmp(isa().name, "avx512") == 0;
  if (!avx512 && std::strcmp(isa().name, "avx2") != 0) return {false, {}, "off: needs AVX2"};
  constexpr uint8_t kReturn[] = {0xc3};  // ret
  if (!x86::CodeMemory(kReturn)) return {false, {}, "off: the system refuses executable memory"};
  return avx512 ? Tier{true, Target::avx512, "avx512"} : Tier{true, Target::avx2, "avx2"};
#else
  return {false, {}, "off: needs x86-64 and POSIX"};
#endif
}

const Tier& tier() {
  static const Tier chosen = choose();
  return chosen;
}

// The estimated ns per element on one thread, with the data in cache: the sum over the vector ops and kernels that the
// program runs for float32 tensors.
double estimate(const Graph& graph, Target target) {
  constexpr double kLoad = 0.01;  // ns, of an input
  constexpr double kAvx2 = 1.4;   // times the ns of AVX-512: 1.1 for loops and 1.6 for kernels on a Zen 4
  std::array<DType, kMaxSlots> dtypes;
  dtypes.fill(DType::f32);
  const StagedProgram program = cut(graph, dtypes.data(), Rounding::nearest, target);
  double ns = kLoad * graph.num_inputs;
  for (const ValueLoop& loop : program.loops)
    for (const ValueInstr& i : loop.code) ns += info(i.op).ns;
  for (const Stage& s : program.stages)
    if (s.kind == Stage::Kind::kernel) ns += native_op(s.call.op).ns;
  return target == Target::avx512 ? ns : kAvx2 * ns;
}

// Computes the values of a function of one sign product, for each of the products that graph.h lists. It runs on
// threads that must not throw, so it takes no memory but the stack.
void fill_table(const TableCalls& calls, const float* row, float* out) noexcept {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  static constexpr float kProducts[kTableEntries] = {0.0f, 1.0f, 0.0f, kNan, -0.0f, -1.0f, 0.0f, kNan};
  alignas(kLine) float values[kMaxTableCalls + 1][kTableEntries];
  float* places[kMaxTableCalls + 1];
  for (size_t i = 0; i <= calls.size(); ++i) places[i] = values[i];
  std::memcpy(values[0], kProducts, sizeof kProducts);
  const KernelSet<float>& kernels = isa().kernels->f32;
  for (const KernelCall& call : calls) run_call(call, places, row, {}, kTableEntries, kernels, {});
  std::memcpy(out, places[calls.size()], sizeof kProducts);
  std::memset(out + kTableEntries, 0, sizeof(float) * (kTableLanes - kTableEntries));
}

// Writes what Expander::quotient needs of a divisor c: 1 / c in two parts, and the range of the method as bits, which
// is 0 when c itself is out of range.
void fill_divisor(float c, float* out) noexcept {
  const bool in_range = c >= kLeastDivisor && c <= kMostDivisor;
  const double exact = 1.0 / static_cast<double>(in_range ? c : 1.0f);
  out[0] = static_cast<float>(exact);
  out[1] = static_cast<float>(exact - static_cast<double>(out[0]));
  const uint32_t reach = in_range ? kDividendReach : 0;
  std::memcpy(out + 2, &reach, sizeof reach);
}

// A reduction of tensors as they are stored, which needs no block of its own.
bool is_fold_of_slots(const Stage& s, int num_slots) {
  return s.kind == Stage::Kind::kernel && s.call.kind == KernelCall::Kind::fold && s.call.arg[0] < num_slots &&
         s.call.arg[1] < num_slots;
}

}  // namespace

const char* status() { return tier().status; }

NativeCode load(Assembly assembly, int num_slots) {
  NativeCode out;
  out.num_slots = num_slots;
  out.num_scratch = assembly.num_scratch;
  out.stages = std::move(assembly.stages);
  out.single_loop =
      out.stages.size() == 1 && (out.stages[0].kind == Stage::Kind::loop || is_fold_of_slots(out.stages[0], num_slots));
  out.memory = x86::CodeMemory(assembly.code);
  out.usable = assembly.entries.empty() || out.memory;
  if (out.memory)
    for (int32_t e : assembly.entries)
      out.loops.push_back(reinterpret_cast<LoopFunction*>(reinterpret_cast<uintptr_t>(out.memory.data() + e)));
  return out;
}

NativeProgram::NativeProgram(const Program& program)
    : graph_(make_graph(program)), cost_(estimate(graph_, tier().target)) {}

const NativeCode* NativeProgram::code_for(const std::array<DType, kMaxSlots>& dtypes, StepKind kind) {
  uint64_t key = kind.index();
  const int slots = graph_.num_inputs;
  for (int s = 0; s < slots; ++s) key = key << 3 | static_cast<uint64_t>(dtypes[static_cast<size_t>(s)]);
  const std::lock_guard lock(mutex_);
  const Variant* found = nullptr;
  for (const auto& v : variants_)
    if (v->key == key) found = v.get();
  if (!found) {
    Assembly assembly =
        assemble(kind.scaled ? scale_gradient(graph_) : graph_, dtypes.data(), kind.rounding, tier().target);
    variants_.push_back(std::make_unique<Variant>(Variant{key, load(std::move(assembly), slots)}));
    found = variants_.back().get();
  }
  return found->code.usable ? &found->code : nullptr;
}

void NativeProgram::fill_row(const double* scalars, float factor, float* row) const noexcept {
  for (int i = 0; i < graph_.num_scalars; ++i) row[i] = static_cast<float>(scalars[i]);
  row[graph_.num_scalars] = factor;
  float* out = row + first_table(graph_);
  for (const TableCalls& calls : graph_.tables) {
    fill_table(calls, row, out);
    out += kTableLanes;
  }
  for (uint16_t d : graph_.divisors) {
    fill_divisor(row[d], out);
    out += kDivisorWords;
  }
}

std::shared_ptr<NativeProgram> native_of(const Program& program) {
  if (!tier().on) return nullptr;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& kept = program.kept.cpu_native;
  if (!kept) kept = std::make_shared<NativeProgram>(program);
  return kept;
}

}  // namespace nos::cpu::native
