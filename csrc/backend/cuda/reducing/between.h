// Owns the kernels that run between the passes of programs with reductions, as the bodies of one thread. They are
// templates over a context like the interpreter's kernel, in phases with a barrier after each:
//
//   begin        a block per piece: copies the row of the call | reads the states that are numbers, and does what comes
//                first
//   first_level  many blocks per turn: the first level of the tree; only where a tensor is so large that it is worth a
//                launch
//   finish       a block per turn: a level of the tree, for each level | reductions, and the arithmetic after them
//   join         a block per group: adds up the parts of each global reduction, in the order of the tensors |
//                reductions, and the arithmetic after them
//
// finish is over where the stage waits for all tensors: then join goes on. Whatever reads a number comes in the next
// launch, so the stream is all the order that there is.
#pragma once
#include "../../../program/fold.h"
#include "../../../program/scalar_code.h"
#include "../common/memory.h"
#include "../common/unroll.h"
#include "../interpreter/fold.h"
#include "records.h"

namespace nos::cuda {

inline constexpr int kBeginThreads = 32, kLevelThreads = 256, kMostFinishThreads = 256,
                     kJoinThreads = 128;  // of a block
inline constexpr int kMostParts = 64;     // blocks of first_level per turn

NOS_HD RowHead* rows_of(const Between& a) { return reinterpret_cast<RowHead*>(a.step_block + sizeof(StepHead)); }
NOS_HD double* numbers_of(const Between& a) { return reinterpret_cast<double*>(rows_of(a) + a.num_pieces); }

// A row's first scalar, counted as the kernel reads it.
NOS_HD uint32_t first_scalar(const Between& a, const PieceRec& piece) {
  return piece.wide ? piece.first : 2 * a.num_numbers + piece.first;
}

// Gives a piece a number, also in the type that its passes compute in.
NOS_HD void set_number(const Between& a, const PieceRec& piece, uint32_t id, double value) {
  double* const numbers = numbers_of(a);
  numbers[piece.first + id] = value;
  if (!piece.wide) reinterpret_cast<float*>(numbers + a.num_numbers)[piece.first + id] = static_cast<float>(value);
}

NOS_HD double load_number(const NumberRec& state) {
  const auto* data = static_cast<const char*>(state.data);
  if (state.dtype == kF64) return *static_cast<const double*>(state.data);
  return static_cast<double>(load1<float, true>(data, state.dtype, 0));
}
NOS_HD void store_number(const NumberRec& state, double value) {
  if (state.dtype == kF64)
    *static_cast<double*>(state.data) = value;
  else
    store1<float, true>(static_cast<char*>(state.data), state.dtype, 0, static_cast<float>(value));
}

// Does the arithmetic of a stage. Where it is the last one, states become what was computed.
NOS_HD void calculate(const Between& a, const PieceRec& piece, const StageRec& stage) {
  const double* const numbers = numbers_of(a) + piece.first;
  NOS_NO_UNROLL for (uint32_t i = 0; i < stage.code; ++i) {
    const NumberIns in = a.code[stage.first_code + i];
    const double value =
        scalar_op(static_cast<Op>(in.op), numbers[in.operand[0]], numbers[in.operand[1]], numbers[in.operand[2]]);
    set_number(a, piece, in.id, value);
  }
  if (!stage.ends) return;
  for (uint32_t i = 0; i < piece.num_states; ++i) {
    const NumberRec state = a.states[piece.states + i];
    store_number(state, numbers[state.new_id]);
  }
}

// ---- begin

template <class Context>
NOS_HD void copy_row(const Context& ctx, const Between& a, uint32_t p) {
  const PieceRec piece = a.pieces[p];
  const auto* rows = reinterpret_cast<const RowHead*>(a.given + sizeof(StepHead));
  const RowHead row = rows[piece.row];
  const double* const scalars = reinterpret_cast<const double*>(rows + a.given_rows) + row.first;
  if (ctx.thread() == 0) {
    if (p == 0) *reinterpret_cast<StepHead*>(a.step_block) = *reinterpret_cast<const StepHead*>(a.given);
    rows_of(a)[p] = {row.seed, first_scalar(a, piece), piece.sums};
  }
  for (uint32_t i = ctx.thread(); i < piece.scalars; i += ctx.threads()) set_number(a, piece, i, scalars[i]);
}

template <class Context>
NOS_HD void read_states(const Context& ctx, const Between& a, uint32_t p) {
  if (ctx.thread() != 0) return;
  const PieceRec piece = a.pieces[p];
  for (uint32_t i = 0; i < piece.num_states; ++i) {
    const NumberRec state = a.states[piece.states + i];
    set_number(a, piece, state.id, load_number(state));
  }
  calculate(a, piece, a.stages[piece.stage]);
}

// ---- first_level, finish

// How many levels of the tree are left for a turn once the pass has summed up the elements of each unit.
NOS_HD int levels_left(const Between& a, uint32_t turn) {
  int out = 0;
  for (int64_t count = fold_units(a.pieces[a.turns[turn].piece].numel); count > 1; count = fold_units(count)) ++out;
  return out;
}

template <Fold F, class Context>
NOS_HD void fold_level(const Context& ctx, const double* from, int64_t count, double* to) {
  const uint32_t lane = ctx.thread() & 31u;
  for (int64_t unit = ctx.thread() / 32; unit < fold_units(count); unit += ctx.threads() / 32) {
    double y[4];
    for (int e = 0; e < 4; ++e) {
      const int64_t i = unit * kFoldUnit + 4 * lane + e, j = i + kFoldUnit / 2;
      y[e] = fold_join<F>(i < count ? from[i] : 0.0, j < count ? from[j] : 0.0);
    }
    ctx.template fold<F>(y, to + unit);
  }
}

// Level `level` of the tree, from 0, for every reduction of the pass.
template <class Context>
NOS_HD void fold_sums(const Context& ctx, const Between& a, uint32_t turn, int level) {
  const TurnRec t = a.turns[turn];
  const PieceRec piece = a.pieces[t.piece];
  const StageRec stage = a.stages[t.stage];
  const int64_t next = fold_numbers(piece.numel);
  int64_t count = fold_units(piece.numel);
  double* from = a.sums + piece.sums;
  for (; level > 0; --level) {
    from += count;
    count = fold_units(count);
  }
  for (uint32_t f = 0; f < stage.folds; ++f, from += next) {
    if (static_cast<Fold>(a.folds[stage.first_fold + f]) == Fold::max_abs)
      fold_level<Fold::max_abs>(ctx, from, count, from + count);
    else
      fold_level<Fold::sum>(ctx, from, count, from + count);
  }
}

// A part of the first level, of several: ctx counts the threads of all parts.
template <class Context>
NOS_HD void fold_part(const Context& ctx, const Between& a, uint32_t turn) {
  if (levels_left(a, turn) > 0) fold_sums(ctx, a, turn, 0);
}

template <class Context>
NOS_HD void conclude(const Context& ctx, const Between& a, uint32_t turn) {
  if (ctx.thread() != 0) return;
  const TurnRec t = a.turns[turn];
  const PieceRec piece = a.pieces[t.piece];
  const StageRec stage = a.stages[t.stage];
  const int64_t next = fold_numbers(piece.numel);
  NOS_NO_UNROLL for (uint32_t r = 0; r < stage.reduced; ++r) {
    const ReducedRec reduced = a.reduced[stage.first_reduced + r];
    const double total = a.sums[piece.sums + (reduced.fold + 1) * next - 1];
    if (reduced.global)
      a.totals[a.parts[t.parts + reduced.global - 1].at] = total;
    else
      set_number(a, piece, reduced.id, finished(static_cast<Op>(reduced.op), total, static_cast<double>(piece.numel)));
  }
  if (!stage.waits) calculate(a, piece, stage);
}

// ---- join

// The sum of the parts takes the place of the first one. A thread does a reduction.
template <class Context>
NOS_HD void add_totals(const Context& ctx, const Between& a, uint32_t group) {
  const GroupRec g = a.groups[group];
  for (uint32_t i = ctx.thread(); i < g.totals; i += ctx.threads()) {
    const TotalRec t = a.joined[g.first_total + i];
    double* const parts = a.totals + t.first;
    double sum = 0;
    NOS_UNROLL_8 for (uint32_t k = 0; k < t.count; ++k) sum += parts[k];
    parts[0] = sum;
  }
}

template <class Context>
NOS_HD void conclude_all(const Context& ctx, const Between& a, uint32_t group) {
  const GroupRec& g = a.groups[group];
  NOS_NO_UNROLL for (uint32_t i = ctx.thread(); i < g.count; i += ctx.threads()) {
    const TurnRec t = a.turns[g.first + i];
    const PieceRec& piece = a.pieces[t.piece];
    const StageRec& stage = a.stages[t.stage];
    NOS_NO_UNROLL for (uint32_t r = 0; r < stage.reduced; ++r) {
      const ReducedRec reduced = a.reduced[stage.first_reduced + r];
      if (reduced.global)
        set_number(a, piece, reduced.id,
                   finished(static_cast<Op>(reduced.op), a.totals[a.parts[t.parts + reduced.global - 1].total], 0));
    }
    calculate(a, piece, stage);
  }
}

}  // namespace nos::cuda
