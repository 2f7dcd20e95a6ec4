#include "step_block.h"

#include <cstring>

#include "../../../ops/float_environment.h"
#include "records.h"

namespace nos::cuda {

namespace {

NOS_NOINLINE void write_step_block_here(Kind kind, const StepArgs& args, unsigned char* out) {
  const StepHead head{args.step, static_cast<uint32_t>(args.rounding), args.factor};
  std::memcpy(out, &head, sizeof head);
  out += sizeof head;
  unsigned char* scalars = out + args.num_rows * sizeof(RowHead);
  uint32_t first = 0;
  for (size_t r = 0; r < args.num_rows; ++r) {
    const RowHead row{args.seeds[r], first, 0};
    std::memcpy(out, &row, sizeof row);
    out += sizeof row;
    first += static_cast<uint32_t>(args.row_sizes[r]);
    for (size_t i = 0; i < args.row_sizes[r]; ++i) {
      const double wide = args.rows[r][i];
      const auto narrow = static_cast<float>(wide);
      if (kind == Kind::f64)
        std::memcpy(scalars, &wide, sizeof wide);
      else
        std::memcpy(scalars, &narrow, sizeof narrow);
      scalars += kind == Kind::f64 ? sizeof wide : sizeof narrow;
    }
  }
}

}  // namespace

size_t step_block_bytes(Kind kind, const StepArgs& args) {
  size_t scalars = 0;
  for (size_t r = 0; r < args.num_rows; ++r) scalars += args.row_sizes[r];
  return sizeof(StepHead) + args.num_rows * sizeof(RowHead) + scalars * (kind == Kind::f64 ? 8 : 4);
}

void write_step_block(Kind kind, const StepArgs& args, unsigned char* out) {
  const FloatEnvironment environment;  // scalars are rounded to fp32
  write_step_block_here(kind, args, out);
}

}  // namespace nos::cuda
