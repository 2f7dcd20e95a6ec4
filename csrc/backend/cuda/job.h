// Owns Job: a plan as the tables of CUDA launches (tables.h). Pure host code: what a device would read can be built,
// inspected and run on a machine without one.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../../plan/plan.h"
#include "../../plan/step.h"
#include "../../program/program.h"
#include "kernels.h"
#include "lower.h"
#include "tables.h"

namespace nos::cuda {

// One launch: the tensors of one kind.
struct Part {
  Kind kind;
  std::vector<TensorRec> tensors;
  std::vector<ChunkRec> chunks;
  uint32_t chunk_elements;  // at most, per chunk
  int64_t longest_chunk;    // elements
  bool one_layout;          // all tensors have the dtypes of the first
};

struct Job {
  std::vector<Part> parts;           // without empty ones
  std::vector<ProgramRec> programs;  // shared by all parts
  std::vector<Ins> code;
  std::vector<std::shared_ptr<const DeviceCode>> lowered;  // one per program: keeps addresses from being used again
  uint32_t longest = 0;                                    // instructions of the longest program, with its end
  uint32_t overflow = 0;                                   // most overflow slots of a program
};

// chunk: elements per block, a multiple of 32; 0: what keeps `blocks_at_once` blocks busy. registers: see lower().
Job make_job(const Plan& plan, std::span<const Program* const> programs, int blocks_at_once, int64_t chunk = 0,
             uint32_t registers = kRegs);

// Takes the addresses of a plan that differs from the job's in them only.
void move_tensors(Job& job, const Plan& plan);

// The step block of one call (tables.h).
size_t step_block_bytes(Kind kind, const StepArgs& args);
void write_step_block(Kind kind, const StepArgs& args, unsigned char* out);

// Threads per block and bytes of dynamic shared memory.
struct Shape {
  int threads;
  size_t code_room, shared;
};

// length: instructions with the end. limit: bytes of dynamic shared memory that a block may have. Throws
// std::invalid_argument when the program needs more even with the smallest block.
Shape block_shape(Kind kind, uint32_t length, uint32_t overflow, int64_t longest_chunk, size_t limit);

}  // namespace nos::cuda
