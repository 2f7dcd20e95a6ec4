#include "reducing_work.h"

#include <algorithm>
#include <map>

namespace nos::cpu::reducing {
namespace {

constexpr int64_t kLeastShared = 4;  // chunks from which on several threads share a slice

Code make_code(const Program& program, bool early) {
  Code out{nullptr, {}, program.num_scalars(), program.num_uniforms(), 0};
  if (!program.has_tensor_scalars()) {
    out.steps.push_back({lowered(program), native::native_of(program)});
    return out;
  }
  out.passes = passes_of(program, early);
  for (const Pass& pass : out.passes->passes) {
    out.steps.push_back({lowered(pass.body), native::native_of(pass.body), &pass, out.num_globals});
    out.num_globals += static_cast<size_t>(std::ranges::count_if(pass.reduced, is_global));
  }
  return out;
}

// Whether states that early passes write can be read back as they were computed.
bool reads_back(const Program& program, const PlannedTensor& t) {
  if (!program.has_tensor_scalars()) return false;
  const DType own = is_wide(t) ? DType::f64 : DType::f32;
  return std::ranges::all_of(passes_of(program, true)->early,
                             [&](int s) { return t.dtype[static_cast<size_t>(s) + bytecode::kFirstState] == own; });
}

}  // namespace

std::shared_ptr<const void> kept(const Program& program) {
  if (program.has_tensor_scalars()) return program.kept.passes;
  return program.kept.cpu_code;
}

Work make_work(const Plan& plan, std::span<const Program* const> programs, int64_t chunk) {
  Work out;
  std::map<std::pair<const Program*, bool>, uint32_t> known;
  std::map<GlobalKey, size_t> totals;
  for (uint32_t i = 0; i < plan.tensors.size(); ++i) {
    const PlannedTensor& t = plan.tensors[i];
    for (uint32_t slice = 0; slice < t.slices; ++slice) {
      const Program& program = *programs[t.program + slice];
      const bool early = reads_back(program, t);
      const auto [at, is_new] = known.try_emplace({&program, early}, static_cast<uint32_t>(out.codes.size()));
      if (is_new) out.codes.push_back(make_code(program, early));
      const Code& code = out.codes[at->second];
      const bool shared = t.numel >= kLeastShared * chunk;
      out.units.push_back({i, slice, at->second, out.num_uniforms, out.total_of_part.size(), shared});
      for (const Code::Step& s : code.steps)
        for (size_t r = 0; s.waits_for_all() && r < s.pass->reduced.size(); ++r)
          if (const Reduced& reduced = s.pass->reduced[r]; is_global(reduced))
            out.total_of_part.push_back(
                totals.try_emplace(global_key(kept(program).get(), slice, *s.pass, reduced), totals.size())
                    .first->second);
      out.num_uniforms += static_cast<size_t>(code.num_uniforms);
      out.elements += t.numel;
      for (const Code::Step& s : code.steps) {
        const double cost = s.native && !is_wide(t) ? s.native->cost() : interpreter_cost(*s.code, is_wide(t));
        out.cost += cost * static_cast<double>(t.numel);
        size_t& most = shared ? out.shared_folds : out.own_folds;
        most = std::max(most, static_cast<size_t>(s.num_folds() * fold_count(t.numel)));
      }
    }
  }
  out.num_totals = totals.size();
  if (const auto norm = totals.find(kGradientNorm); norm != totals.end()) out.gradient_norm = norm->second;
  for (const Code& code : out.codes)
    out.phases = std::max(out.phases, 1 + std::ranges::count_if(code.steps, &Code::Step::waits_for_all));
  return out;
}

}  // namespace nos::cpu::reducing
