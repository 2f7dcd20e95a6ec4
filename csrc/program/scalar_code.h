// Owns the evaluation of one scalar instruction, in double, for the host (Program::eval_scalars) and for the device
// (the prologue of a captured step).
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

}  // namespace nos
