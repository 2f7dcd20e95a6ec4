// OpenMP's parallel region on std::threads, in the place of GCC's libgomp: ThreadSanitizer sees what these threads wait
// for, and takes libgomp's own barriers, which are futexes, for no synchronisation at all.
#include <omp.h>

#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 3;  // more than the machine may have: what is tested is who may run beside whom
thread_local int t_number = 0;

}  // namespace

extern "C" {

int omp_get_max_threads() { return kThreads; }

int omp_get_thread_num() { return t_number; }

// What GCC makes of `#pragma omp parallel num_threads(...)`.
void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned) {
  std::vector<std::thread> others;
  for (int i = 1; i < static_cast<int>(num_threads ? num_threads : kThreads); ++i)
    others.emplace_back([=] {
      t_number = i;
      body(data);
    });
  const int outer = t_number;
  t_number = 0;
  body(data);
  t_number = outer;
  for (std::thread& t : others) t.join();
}
}
