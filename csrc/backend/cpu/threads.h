// Owns what the CPU back-end knows of threads: how many there may be, and the scratch memory that each one keeps.
#pragma once
#include <atomic>
#include <cstddef>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "../../ops/float_environment.h"

namespace nos::cpu {

inline constexpr double kThreadWork = 2500;  // ns of work that make it worthwhile to start one more thread

// Whether this process is a forked child. OpenMP's threads do not survive a fork, and libgomp would wait for them for
// ever.
bool is_forked();

// As many threads as OpenMP (and so torch.set_num_threads) allows; 1 in a forked child.
int max_threads();

// Memory of the calling thread, which starts at a cache line and is kept for the next call. Null when there is none.
char* scratch_memory(size_t bytes) noexcept;

// Calls visit(i, memory) for every i < count, on at most `threads` threads. `memory` is `bytes` of scratch memory, and
// `own` is that of the calling thread, which has it already. A thread that gets none leaves its share to the others.
template <class Visit>
void for_each_on_threads(int threads, size_t count, size_t bytes, char* own, const Visit& visit) {
#ifdef _OPENMP
  if (threads > 1 && count > 1) {
    std::atomic<size_t> next{0};
#pragma omp parallel num_threads(threads)
    {
      const FloatEnvironment environment;
      if (char* memory = omp_get_thread_num() == 0 ? own : scratch_memory(bytes))
        for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) visit(i, memory);
    }
    return;
  }
#endif
  for (size_t i = 0; i < count; ++i) visit(i, own);
}

}  // namespace nos::cpu
