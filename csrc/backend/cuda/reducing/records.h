// Owns the layout of what the kernels read that run between the passes of programs with reductions
// (program/passes.h, between.h). A piece is a slice of a tensor; its numbers are the scalars of its row, then its
// tensor scalars. They are kept in double. Passes read them as the rows of a step block (common/records.h) in device
// memory, which has a row for every piece:
//
//   StepHead | RowHead x pieces | double x numbers of all pieces | float x numbers of all pieces
//
// The sums of a piece are fold_numbers(numel) numbers for each reduction of a pass (interpreter/fold.h).
#pragma once
#include "../common/records.h"

namespace nos::cuda {

struct PieceRec {
  int64_t numel;
  uint32_t row;      // of the call's step block
  uint32_t scalars;  // of the row
  uint32_t first;    // index of the first number
  uint32_t sums;     // index of the first sum
  uint32_t stage;    // of its program: what comes before the first pass. What comes after pass k is stage + 1 + k
  uint32_t states;   // index of the first state that is a number
  uint32_t num_states;
  uint32_t wide;  // 1: passes compute in double
};

// A state that is one number per tensor.
struct NumberRec {
  void* data;  // of the slice
  uint32_t dtype;
  uint16_t id, new_id;  // of the number that it is at the beginning, and of the one that it becomes
};

// A reduction of a pass, made of what the pass has added up.
struct ReducedRec {
  uint16_t op, fold, id;
  uint16_t global;  // 0, or of all tensors: its number among such reductions of the pass, from 1
};

// Arithmetic between the numbers of a piece.
struct NumberIns {
  uint16_t op, id;
  uint16_t operand[3];
  uint16_t unused;
};

// What a program does at one point between its passes.
struct StageRec {
  uint32_t first_fold, folds;  // the reductions of the pass before, as Fold
  uint32_t first_reduced, reduced;
  uint32_t first_code, code;
  uint32_t waits;  // 1: for all tensors, as a reduction is global
  uint32_t ends;   // 1: all numbers are known, and states get theirs
};

// A piece whose numbers are made after a pass.
struct TurnRec {
  uint32_t piece, stage;
  uint32_t parts;  // where the stage waits: index of its part of the first global reduction. The others follow
};
// A piece's part of a global reduction. The parts of all pieces lie beside each other, in the order of the tensors, and
// the sum takes the place of the first one.
struct PartRec {
  uint32_t at, total;  // indices of the part and of the first one
};
// A global reduction: its parts.
struct TotalRec {
  uint32_t first, count;
};
// The turns that wait for each other, those of one slice, and the reductions that they wait for.
struct GroupRec {
  uint32_t first, count;
  uint32_t first_total, totals;
};

// The argument of the kernels between the passes.
struct Between {
  const PieceRec* pieces;
  const NumberRec* states;
  const StageRec* stages;
  const uint8_t* folds;
  const ReducedRec* reduced;
  const NumberIns* code;
  const TurnRec* turns;
  const PartRec* parts;
  const TotalRec* joined;
  const GroupRec* groups;
  const unsigned char* given;  // the call's step block, in double
  unsigned char* step_block;   // the one that passes read
  double* sums;
  double* totals;
  uint32_t given_rows, num_pieces, num_numbers;
  uint32_t first;  // the turn of block 0, or its group
  uint32_t done;   // levels of the tree that are done when finish begins: 1 after first_level, else 0
};

}  // namespace nos::cuda
