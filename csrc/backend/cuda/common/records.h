// Owns the layout of everything that a kernel reads: plain structs that host, nvcc, NVRTC and the host-run tests share.
// One launch covers many tensors, many scalar rows (one per param group or per slice of a population) and many
// programs. Its block b finds its work so:
//
//   chunk c    chunks[b]                      elements [begin, begin + chunk_elements) of one slice of one tensor
//   tensor t   tensors[c.tensor]              pointers, dtypes, number of elements in a slice
//   program    programs[t.program + c.slice]
//   row        t.row + c.slice                of the step block: a seed and scalars
//
// The step block is all that changes from step to step:
//
//   StepHead | RowHead x rows | scalars: float or double, as the kernel computes; those of row r start at rows[r].first
//
// The scalars of a row are those of Program::eval_scalars, in its order, rounded once to the type that the kernel
// computes in. A small step block travels inside Launch as a kernel argument; a large one, and that of a captured step,
// lies in device memory.
#pragma once
#include <cstdint>

namespace nos::cuda {

inline constexpr int kSlots = 10;  // p, g, up to 8 states: numbered as the program's value ids

// Storage of a slot in TensorRec::dtypes. The order is that of nos::DType. Slot s has two bits at bit 2 s, and its
// third one, which says that it is stored in codes, at kCodeBits + s: kernels without codes never read it.
inline constexpr uint32_t kF32 = 0, kF64 = 1, kBF16 = 2, kF16 = 3, kI8 = 4, kU8 = 5;
inline constexpr int kCodeBits = 2 * kSlots;
static_assert(kCodeBits + kSlots <= 32);

// One parameter with its gradient and states. Slice k starts k * numel elements into each slot's memory. In a launch
// that has states in codes, the record behind that of a tensor is its own, too: `data` has the scales there.
struct TensorRec {
  void* data[kSlots];  // null for slots that the call does not have
  int64_t numel;       // of one slice
  uint32_t dtypes;
  uint32_t aligned;  // 1: in every slice, each slot starts at a multiple of 16 bytes (8 for 2-byte storage, 4 for
                     // codes), so that 4 elements from a multiple of 4 on are one access
  uint32_t program;  // of slice 0
  uint32_t row;      // of slice 0
  uint32_t index;    // tensor number in the key of random draws
  uint32_t unused;
};
static_assert(sizeof(TensorRec) == 112);

// The work of one block. `begin` counts from the start of the slice and is a multiple of 4.
struct ChunkRec {
  int64_t begin;
  uint32_t tensor;
  uint32_t slice;
};
static_assert(sizeof(ChunkRec) == 16);

// One instruction of the interpreter (interpreter/isa.h). If `op` has kScalarFlag, `arg` is the number of a scalar of
// the row. Otherwise it is that of an overflow slot, a tensor slot or a draw site, as the op says.
struct Ins {
  uint32_t op;
  uint32_t arg;
};

struct ProgramRec {
  uint32_t first;   // index of its first instruction in the code array
  uint32_t length;  // instructions
  uint32_t reads;   // bit s: slot s is loaded before the code runs
  uint32_t writes;  // bit s: slot s is stored after it; never bit 1, the gradient
};
static_assert(sizeof(Ins) == 8 && sizeof(ProgramRec) == 16);

struct StepHead {
  uint32_t step;      // of the random key; 1-based
  uint32_t rounding;  // plan/step.h: a bit for the parameter, one for the states
  double factor;      // multiplies every gradient in the compute type: -1 for maximize, 1 / grad_scale
};

struct RowHead {
  uint64_t seed;
  uint32_t first;  // index of the row's first scalar
  uint32_t sums;   // of a pass (reducing/records.h): index of the first sum of the row's slice
};
static_assert(sizeof(StepHead) == 16 && sizeof(RowHead) == 16);

inline constexpr uint32_t kInlineBytes = 2048;

// The one argument of every kernel, interpreted or compiled. The grid has one block for each chunk. A block may have
// any multiple of 32 threads, and results do not depend on how many.
struct Launch {
  const TensorRec* tensors;
  const ChunkRec* chunks;
  const ProgramRec* programs;
  const Ins* code;
  const unsigned char* step_block;  // device memory; null: inline_block
  uint32_t rows;
  uint32_t chunk_elements;  // a multiple of 32
  uint32_t code_room;       // bytes of dynamic shared memory for code; overflow slots follow
  uint32_t unused;
  double* sums;  // of a pass: what its reductions add up
  alignas(16) unsigned char inline_block[kInlineBytes];
};
static_assert(sizeof(Launch) <= 4096, "kernel arguments");

}  // namespace nos::cuda
