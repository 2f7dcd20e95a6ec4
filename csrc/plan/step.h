// Owns StepArgs: what changes from step to step, besides the tensors. Every back-end takes it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nos {

// What may differ from row to row, where one run takes tensors that have taken different numbers of steps.
struct RowArgs {
  uint32_t step;
  double factor;
  bool stochastic_rounding;
};

struct StepArgs {
  const double* const* rows;  // rows[t.row + slice]: the scalars of Program::eval_scalars
  const size_t* row_sizes;
  size_t num_rows;
  const uint64_t* seeds;             // one per row
  uint32_t step;                     // 1-based; the step of the random key
  double factor;                     // every gradient is multiplied by it: -1 for maximize, 1 / grad_scale
  bool stochastic_rounding = false;  // whether results in half precision are rounded stochastically
  const RowArgs* of_rows = nullptr;  // one per row, instead of the three above; see Backend::takes_rows_apart
  // Where the global norm of the gradients goes, times the factor, if the programs compute it and the back-end tells.
  // Of a run that is no population.
  double* gradient_norm = nullptr;
};

}  // namespace nos
