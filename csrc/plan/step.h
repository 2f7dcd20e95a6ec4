// Owns StepArgs: what changes from step to step, besides the tensors. Every back-end takes it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nos {

// Which results are rounded stochastically, and not to the nearest, of those that are stored with fewer bits than they
// are computed in. A bit for the parameter and one for the states.
enum class Rounding : uint8_t { nearest = 0, states = 2, all = 3 };
constexpr bool is_stochastic(Rounding rounding, bool of_state) {
  return static_cast<uint32_t>(rounding) >> static_cast<uint32_t>(of_state) & 1;
}

// What may differ from row to row, where one run takes tensors that have taken different numbers of steps.
struct RowArgs {
  uint32_t step;
  double factor;
  Rounding rounding;
};

struct StepArgs {
  const double* const* rows;  // rows[t.row + slice]: the scalars of Program::eval_scalars
  const size_t* row_sizes;
  size_t num_rows;
  const uint64_t* seeds;  // one per row
  uint32_t step;          // 1-based; the step of the random key
  double factor;          // every gradient is multiplied by it: -1 for maximize, 1 / grad_scale
  Rounding rounding = Rounding::nearest;
  const RowArgs* of_rows = nullptr;  // one per row, instead of the three above; see Backend::takes_rows_apart
  // Where the global norm of the gradients goes, times the factor, if the programs compute it. Of a run that is no
  // population. Where it is on a device, so that the host would have to wait for it, it is NaN.
  double* gradient_norm = nullptr;
};

}  // namespace nos
