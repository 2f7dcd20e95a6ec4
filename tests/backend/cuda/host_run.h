// Owns the run of kernels on the host: their own bodies for every (block, thread) pair, phase by phase. So a machine
// without a device proves the kernels; it is far too slow for anything else.
#pragma once
#include <vector>

#include "../../../csrc/backend/cuda/captured/image.h"
#include "../../../csrc/backend/cuda/common/batches.h"
#include "../../../csrc/backend/cuda/interpreter/program_table.h"
#include "../../../csrc/backend/cuda/interpreter/shape.h"
#include "../../../csrc/backend/cuda/reducing/image.h"
#include "../../../csrc/plan/step.h"

namespace nos::cuda {

// One launch of the interpreter, with a block for each chunk.
void host_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape);

// The same with the kernel that has reductions.
void host_folding_launch(Kind kind, const Launch& launch, size_t blocks, const Shape& shape);

// What runs between the passes of programs with reductions, with so many threads per block, and so many blocks for each
// turn where it is first_level.
enum class Stage { begin, first_level, finish, join };
void host_between(Stage stage, const Between& a, size_t blocks, int threads, uint32_t parts = 1);

// One step of programs of which some have reductions.
void host_run(const ReducingImage& image, const StepArgs& args);
void host_run(const ReducingImage& image, const unsigned char* given, size_t rows);  // the step block, in double

// A kernel that was compiled for one rule, run for every block of a launch.
using CompiledKernel = void (*)(const Launch* launch, uint32_t blocks);

// One step. shared_limit: bytes of shared memory that a block may have, as on a device. compiled runs in the place of
// the interpreter where it is not null.
void host_run(const std::vector<Batch>& batches, const ProgramTable& table, const StepArgs& args, size_t shared_limit,
              CompiledKernel compiled = nullptr);

// How the blocks of a prologue are run, which must not matter.
struct PrologueOrder {
  uint32_t threads = kPrologueThreads;
  bool backwards = false;  // the last block first, and in each phase the last thread first
};
void host_prologue(const Prologue& a, uint32_t blocks, size_t shared, PrologueOrder order = {});

// One step of a captured image: the prologue, then the launches, which are those of `passes` where a rule has
// reductions.
void host_run(const CapturedImage& image, const ReducingImage* passes, size_t shared_limit, PrologueOrder order = {});

}  // namespace nos::cuda
