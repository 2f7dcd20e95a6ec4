#include "threads.h"

#include <pthread.h>

#include <new>

#include "kernel_call.h"

namespace nos::cpu {
namespace {

// The module watches for forks from the moment it is loaded, since others in the process may use OpenMP too.
std::atomic<bool> g_forked{false};
const bool g_watched = pthread_atfork(nullptr, nullptr, [] { g_forked.store(true, std::memory_order_relaxed); }) == 0;

class Scratch {
 public:
  ~Scratch() { free(); }
  char* get(size_t bytes) noexcept {
    if (bytes > size_) {
      free();
      data_ = ::operator new(bytes, std::align_val_t{kLine}, std::nothrow);
      size_ = data_ ? bytes : 0;
    }
    return static_cast<char*>(data_);
  }

 private:
  void free() {
    if (data_) ::operator delete(data_, std::align_val_t{kLine});
    data_ = nullptr;
    size_ = 0;
  }
  void* data_ = nullptr;
  size_t size_ = 0;
};
thread_local Scratch t_scratch;

}  // namespace

bool is_forked() { return !g_watched || g_forked.load(std::memory_order_relaxed); }

int max_threads() {
#ifdef _OPENMP
  if (is_forked()) return 1;
  return omp_get_max_threads();
#else
  return 1;
#endif
}

char* scratch_memory(size_t bytes) noexcept { return t_scratch.get(bytes); }

}  // namespace nos::cpu
