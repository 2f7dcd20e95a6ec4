// Owns the evaluation of one scalar instruction, and of what a reduction has added up, in double, for host and device:
// of the scalars of a step, and of the numbers of a tensor between the passes of a program (passes.h).
#pragma once
#include "../ops/math.h"
#include "../ops/op.h"

namespace nos {

NOS_HD double scalar_op(Op op, double a, double b, double c) {
  switch (static_cast<ScalarOp>(op)) {
#define NOS_CASE_random(id, ...)
#define NOS_CASE_reduce NOS_CASE_random
#define NOS_CASE_global NOS_CASE_random
#define NOS_CASE_any(id, ...) \
  case ScalarOp::id:          \
    return math::id<double>(__VA_ARGS__);
#define NOS_CASE_scalar NOS_CASE_any
#define NOS_ARGS_1 a
#define NOS_ARGS_2 a, b
#define NOS_ARGS_3 a, b, c
#define NOS_OP(id, arity, domain, ...) NOS_CASE_##domain(id, NOS_ARGS_##arity)
#include "../ops/ops.def"
#undef NOS_OP
#undef NOS_ARGS_1
#undef NOS_ARGS_2
#undef NOS_ARGS_3
#undef NOS_CASE_scalar
#undef NOS_CASE_any
#undef NOS_CASE_reduce
#undef NOS_CASE_global
#undef NOS_CASE_random
  }
  return __builtin_nan("");  // never: verify.cc refuses other ops here
}

// The reduction of `op` over `count` elements, given what was added up.
NOS_HD double finished(Op op, double total, double count) {
  total += 0.0;  // no reduction is -0
  switch (static_cast<ReduceOp>(op)) {
    case ReduceOp::mean:
      return total / count;
    case ReduceOp::norm:
    case ReduceOp::global_norm:
      return math::sqrt<double>(total);
    case ReduceOp::rms:
      return math::sqrt<double>(total / count);
    case ReduceOp::sum:
    case ReduceOp::max_abs:
    case ReduceOp::dot:
    case ReduceOp::global_sum:
    case ReduceOp::global_dot:
      return total;
  }
  return __builtin_nan("");  // never: fold_of refuses other ops
}

}  // namespace nos
