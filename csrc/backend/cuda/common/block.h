// Owns how a block finds its work, a chunk of one tensor with its memory and its scalars, in the records of its launch.
// Interpreted and compiled kernels alike begin with it.
#pragma once
#include "memory.h"
#include "records.h"

namespace nos::cuda {

// The work of one block of a kernel that computes in T.
template <class T>
struct Work {
  const ChunkRec chunk;
  const TensorRec& tensor;
  const StepHead& head;
  const RowHead row;
  const T* const scalars;

  NOS_HD int count(uint32_t chunk_elements) const {
    const int64_t left = tensor.numel - chunk.begin;
    return static_cast<int>(left < chunk_elements ? left : chunk_elements);
  }
  // The memory of slot s at the chunk's first element; `dtype` is the slot's. The arithmetic is not done on pointers,
  // since the address of a slot that the call does not have is null.
  NOS_HD char* memory(uint32_t s, uint32_t dtype) const {
    const int64_t elements = chunk.slice * tensor.numel + chunk.begin;
    return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(tensor.data[s]) +
                                   static_cast<uintptr_t>(elements * size_of_dtype(dtype)));
  }
};

template <class T>
NOS_HD Work<T> work_of(const Launch& launch, uint32_t block) {
  const ChunkRec chunk = launch.chunks[block];
  const TensorRec& tensor = launch.tensors[chunk.tensor];
  const unsigned char* step_block = launch.step_block ? launch.step_block : launch.inline_block;
  const auto* rows = reinterpret_cast<const RowHead*>(step_block + sizeof(StepHead));
  const RowHead row = rows[tensor.row + chunk.slice];
  return {chunk, tensor, *reinterpret_cast<const StepHead*>(step_block), row,
          reinterpret_cast<const T*>(rows + launch.rows) + row.first};
}

}  // namespace nos::cuda
