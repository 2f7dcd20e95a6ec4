// Owns Graph: a program in the form that the native tier compiles. It has no dead code, and functions of signs are
// look-ups in it.
//
// A product of sign() results is -1, -0, +0, 1 or NaN, so a function of it alone, such as exp(log(base) * decay *
// sign(g) * sign(m)), has five values per step. The kernels of the interpreter evaluate it on those five, with the
// step's scalars, and the loop looks the result up: the top three bits of a float tell the five apart.
//
//   entry    0    1    2    3    4    5    6    7      = bits >> 29
//   product  +0   +1    .   NaN  -0   -1    .   NaN
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../../program/program.h"
#include "../kernel_call.h"
#include "loop.h"

namespace nos::cpu::native {

inline constexpr int kDivisorWords = 3;  // floats of one divisor in the scalar row: see Expander::quotient
inline constexpr int kTableEntries = 8;  // entries of one look-up table: see above
inline constexpr int kTableLanes = 16;   // floats of one table in the scalar row: the loop may read 16 there

// Values are numbered as in a program: inputs first, then one per node. Scalars have their numbers of the program, and
// one more, program.num_uniforms(), is the factor of the gradient.
struct Node {
  Op op{};
  Operand a, b, c;
  int16_t table = -1;    // >= 0: the node is a look-up of `a` in that table, and has no op
  int16_t divisor = -1;  // >= 0: the node divides by the scalar `b`, which is that divisor, without the divider
  int arity() const { return table >= 0 ? 1 : info(op).arity; }
  Operand& operand(int i) { return i == 0 ? a : i == 1 ? b : c; }
  const Operand& operand(int i) const { return i == 0 ? a : i == 1 ? b : c; }
};

// The calls of block kernels that fill a look-up table, which holds a function of one sign product. Place 0 is the
// product, place k the result of call k - 1, and the last result is the table. There are at most kMaxTableCalls, so
// that their results have room on the stack of a thread: a value that takes more is computed element by element.
using TableCalls = std::vector<KernelCall>;
inline constexpr size_t kMaxTableCalls = 64;

struct Graph {
  int num_inputs;
  int num_scalars;  // uniforms of the program; the factor comes after them
  std::vector<Node> nodes;
  std::vector<Operand> outputs;
  std::vector<TableCalls> tables;
  std::vector<uint16_t> divisors;  // the scalars that values are divided by without the divider
  std::vector<float> constants;    // the value of each scalar that is a constant, NaN for the others
};

// Where the parts of the scalar row begin: | scalars | factor | tables | divisors |
inline int first_table(const Graph& g) { return g.num_scalars + 1; }
inline int first_divisor(const Graph& g) { return first_table(g) + static_cast<int>(g.tables.size()) * kTableLanes; }
inline int row_size(const Graph& g) { return first_divisor(g) + static_cast<int>(g.divisors.size()) * kDivisorWords; }

Graph make_graph(const Program& program);

// The same graph, except that the gradient is multiplied by the factor first.
Graph scale_gradient(const Graph& graph);

// What a row of native.def says of its op.
struct NativeOp {
  enum Kind : uint8_t { kernel, loop, compare } kind;
  double ns;            // per element, of a kernel; the time of a loop is that of its vector ops
  Predicate predicate;  // of a comparison
};

constexpr NativeOp native_op(Op op) {
  if (is_reduction(op)) return {NativeOp::kernel, 0.1, {}};
  switch (static_cast<ElementOp>(op)) {
#define NOS_KERNEL(id, ns) \
  case ElementOp::id:      \
    return {NativeOp::kernel, ns, {}};
#define NOS_LOOP(id, code) \
  case ElementOp::id:      \
    return {NativeOp::loop, 0, {}};
#define NOS_COMPARE(id, predicate) \
  case ElementOp::id:              \
    return {NativeOp::compare, 0, predicate};
#include "native.def"
#undef NOS_KERNEL
#undef NOS_LOOP
#undef NOS_COMPARE
  }
  throw std::logic_error("the native tier has no row for op " + std::string(info(op).name));
}

}  // namespace nos::cpu::native
