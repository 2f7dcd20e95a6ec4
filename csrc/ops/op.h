// Owns the opcode enums and OpInfo, all expanded from ops.def.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace nos {

enum class Op : uint8_t {
#define NOS_OP(id, ...) id,
#include "ops.def"
#undef NOS_OP
};

// The ops that can stand in one part of a program, as enums of their own with the values of Op. A switch over such an
// enum has no default, so it does not compile while it lacks a row of ops.def (-Werror=switch).
#define NOS_ONE(id) id = static_cast<uint8_t>(Op::id),
#define NOS_NONE(id)
#define NOS_OP(id, arity, domain, ...) NOS_ROW_##domain(id)
#define NOS_ROW_any NOS_ONE
#define NOS_ROW_scalar NOS_NONE
#define NOS_ROW_random NOS_ONE
#define NOS_ROW_reduce NOS_NONE
#define NOS_ROW_global NOS_NONE
enum class ElementOp : uint8_t {  // of the per-element code
#include "ops.def"
};
#undef NOS_ROW_scalar
#undef NOS_ROW_random
#define NOS_ROW_scalar NOS_ONE
#define NOS_ROW_random NOS_NONE
enum class ScalarOp : uint8_t {  // of the scalar code
#include "ops.def"
};
#undef NOS_ROW_any
#undef NOS_ROW_scalar
#undef NOS_ROW_random
#define NOS_ROW_any NOS_NONE
#define NOS_ROW_scalar NOS_NONE
#define NOS_ROW_random NOS_ONE
enum class RandomOp : uint8_t {
#include "ops.def"
};
#undef NOS_ROW_random
#undef NOS_ROW_reduce
#undef NOS_ROW_global
#define NOS_ROW_random NOS_NONE
#define NOS_ROW_reduce NOS_ONE
#define NOS_ROW_global NOS_ONE
enum class ReduceOp : uint8_t {
#include "ops.def"
};
#undef NOS_ROW_any
#undef NOS_ROW_scalar
#undef NOS_ROW_random
#undef NOS_ROW_reduce
#undef NOS_ROW_global
#undef NOS_OP
#undef NOS_NONE
#undef NOS_ONE

enum class Domain : uint8_t { any, scalar, random, reduce, global };  // see ops.def

struct OpInfo {
  std::string_view name;
  int arity;
  Domain domain;
  std::string_view symbol;
  bool commutes;
  int cost;
  std::string_view numpy, torch, latex, doc;
};

inline constexpr std::array kOps = {
#define NOS_OP(id, arity, domain, symbol, commutes, cost, numpy, torch, latex, doc) \
  OpInfo{#id, arity, Domain::domain, symbol, commutes != 0, cost, numpy, torch, latex, doc},
#include "ops.def"
#undef NOS_OP
};
inline constexpr int kNumOps = static_cast<int>(kOps.size());

constexpr const OpInfo& info(Op op) { return kOps[static_cast<size_t>(op)]; }
constexpr bool is_reduction(Op op) { return info(op).domain == Domain::reduce || info(op).domain == Domain::global; }

namespace detail {
constexpr bool table_is_sound() {
  for (int i = 0; i < kNumOps; ++i) {
    if (kOps[i].arity < 1 || kOps[i].arity > 3 || kOps[i].cost < 1 || kOps[i].doc.empty()) return false;
    for (int j = 0; j < i; ++j)
      if (kOps[i].name == kOps[j].name) return false;
  }
  return true;
}
}  // namespace detail
static_assert(kNumOps <= 256, "the opcode is one byte");
static_assert(detail::table_is_sound(), "ops.def: arity 1..3, positive cost, a doc line, unique names");
static_assert(Op::add == Op{0} && kOps[30].name == "normal", "ops.def is append-only: its row number is the opcode");

}  // namespace nos
