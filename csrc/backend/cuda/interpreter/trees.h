// Owns the trees of a program: which of its values are computed where they are read. Such a value never leaves the
// accumulator. All others are roots of trees, and have a place by the time that they are read.
#pragma once
#include <vector>

#include "../../../program/program.h"

namespace nos::cuda {

// Each vector has a number for every value of the program (analysis.h).
struct Trees {
  explicit Trees(const Program& program);

  // Whether a value is computed where it is read.
  bool is_tree(Operand o) const { return !o.is_scalar() && o.id() >= inputs && !root[static_cast<size_t>(o.id())]; }

  int inputs;               // the number of values that are tensors of the call
  std::vector<int> reads;   // by instructions, and by outputs that go to another slot
  std::vector<int> need;    // the temporaries that the tree below a value takes while it is computed
  std::vector<bool> root;   // of a tree; false for inputs, and for what nobody reads
  bool uses_third = false;  // whether an instruction has a third operand in a fixed place, kU
};

}  // namespace nos::cuda
