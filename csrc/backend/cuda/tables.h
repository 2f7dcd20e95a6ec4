// Owns the layout of everything that a kernel reads: plain structs that host, nvcc, NVRTC and the host-run tests share.
// One launch covers many tensors, scalar rows (param groups, population slices) and programs:
//
//   block b works on chunk      chunks[b]          elements [begin, begin + chunk_elements) of one slice of one tensor
//                    tensor     tensors[c.tensor]  pointers, dtypes, elements of a slice
//                    program    programs[t.program + c.slice]
//                    row        t.row + c.slice    of the step block: seed, scalars
//
// Step block, the only part that changes from step to step:
//
//   StepHead | RowHead x rows | scalars: float or double, by the kernel's compute type; row r starts at rows[r].first
//
// The scalars of a row are those of Program::eval_scalars, in its order, rounded once to the compute type. A small step
// block travels inside Launch as a kernel argument; a large one, and that of a captured step, lies in device memory.
#pragma once
#if defined(__CUDACC_RTC__)
using uint8_t = unsigned char;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

namespace nos::cuda {

inline constexpr int kSlots = 10;  // p, g, up to 8 states: numbered as the program's value ids

// Storage of a slot, 2 bits each in TensorRec::dtypes: slot s at bit 2 s. The order is that of nos::DType.
inline constexpr uint32_t kF32 = 0, kF64 = 1, kBF16 = 2, kF16 = 3;

// One parameter with its gradient and states. Slice k starts k * numel elements into each slot's memory.
struct TensorRec {
  void* data[kSlots];  // null for slots that the call does not have
  int64_t numel;       // of one slice
  uint32_t dtypes;
  uint32_t aligned;  // 1: in every slice, each slot starts at a multiple of 16 bytes (8 for 2-byte storage), so that 4
                     // elements from a multiple of 4 on are one access
  uint32_t program;  // of slice 0
  uint32_t row;      // of slice 0
  uint32_t index;    // tensor number in the key of random draws
  uint32_t unused;
};
static_assert(sizeof(TensorRec) == 112);

// Work of one block. begin counts within the slice and is a multiple of 4.
struct ChunkRec {
  int64_t begin;
  uint32_t tensor;
  uint32_t slice;
};
static_assert(sizeof(ChunkRec) == 16);

// Interpreter code (isa.h). arg: scalar of the row (op has kScalarFlag), overflow slot, tensor slot or draw site.
struct Ins {
  uint32_t op;
  uint32_t arg;
};

struct ProgramRec {
  uint32_t first;   // in the code array
  uint32_t length;  // instructions
  uint32_t reads;   // bit s: slot s is loaded before the code runs
  uint32_t writes;  // bit s: slot s is stored after it; never bit 1, the gradient
};
static_assert(sizeof(Ins) == 8 && sizeof(ProgramRec) == 16);

struct StepHead {
  uint32_t step;                 // of the random key; 1-based
  uint32_t stochastic_rounding;  // 1: results in half precision are rounded stochastically
  double factor;                 // multiplies every gradient in the compute type: -1 for maximize, 1 / grad_scale
};

struct RowHead {
  uint64_t seed;
  uint32_t first;  // index of the row's first scalar
  uint32_t unused;
};
static_assert(sizeof(StepHead) == 16 && sizeof(RowHead) == 16);

inline constexpr uint32_t kInlineBytes = 2048;

// The one argument of every kernel, interpreted or compiled. Grid: one block per chunk; block size: free, a multiple of
// 32; results do not depend on it.
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
  alignas(16) unsigned char inline_block[kInlineBytes];
};
static_assert(sizeof(Launch) <= 4096, "kernel arguments");

}  // namespace nos::cuda
