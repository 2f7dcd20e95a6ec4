// Owns the passes that the bench measures the engine against, behind four C functions for ctypes
// (bench/peers/native.py): the streams (limit of the memory) and the hand-fused rules (limit of code generation), over
// a list of tensors.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "bodies.h"

namespace nos::bench {
namespace {

// slots: p, g, then the states. One loop per number of states, so that no pointer is an alias of a pointer array.
using Pass = void (*)(float* const* slots, int64_t first, int64_t n, const float* scalars);

template <class Body>
void pass(float* const* slots, int64_t first, int64_t n, const float* scalars) {
  const Body body(scalars);
  float* __restrict p = slots[0] + first;
  const float* __restrict g = slots[1] + first;
  if constexpr (Body::kStates == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) body(p[i], g[i]);
  } else if constexpr (Body::kStates == 1) {
    float* __restrict m = slots[2] + first;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      float x = p[i], y = m[i];
      body(x, g[i], y);
      p[i] = x;
      m[i] = y;
    }
  } else {
    float* __restrict m = slots[2] + first;
    float* __restrict v = slots[3] + first;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      float x = p[i], y = m[i], z = v[i];
      body(x, g[i], y, z);
      p[i] = x;
      m[i] = y;
      v[i] = z;
    }
  }
}

struct Entry {
  const char* name;
  int slots;
  Pass pass;
};
template <class Body>
constexpr Entry entry(const char* name) {
  return {name, 2 + Body::kStates, pass<Body>};
}
constexpr Entry kPasses[] = {
    entry<Stream1>("stream_2"),
    entry<Stream2>("stream_3"),
    entry<Stream3>("stream_4"),
    entry<Sgd>("sgd"),
    entry<Momentum>("momentum"),
    entry<Adam<false>>("adam"),
    entry<Adam<true>>("adamw"),
    entry<Lion>("lion"),
    entry<RmsProp>("rmsprop"),
    entry<PowerSign>("powersign"),
    entry<PowerSignSelect>("powersign_select"),
    entry<AddSign>("addsign"),
    entry<Random15>("random15"),
    entry<Random40>("random40"),
};

struct Piece {
  int64_t tensor, first, n;
};

// The work, cut in groups of pieces: `threads` equal groups, one for each thread, or many that are taken from a
// counter.
struct Job {
  Pass pass;
  std::vector<std::vector<float*>> slots;  // of each tensor
  std::vector<Piece> pieces;
  std::vector<size_t> groups;  // group i is pieces[groups[i]] ... pieces[groups[i + 1] - 1]
  int threads;
};

// Groups of `size` elements over the concatenation of all tensors.
void cut(Job& job, const int64_t* numel, int64_t tensors, int64_t size) {
  int64_t room = size;
  job.groups.push_back(0);
  for (int64_t t = 0; t < tensors; ++t) {
    for (int64_t first = 0; first < numel[t];) {
      const int64_t n = std::min(room, numel[t] - first);
      job.pieces.push_back({t, first, n});
      first += n;
      room -= n;
      if (room == 0) {
        job.groups.push_back(job.pieces.size());
        room = size;
      }
    }
  }
  if (job.groups.back() != job.pieces.size()) job.groups.push_back(job.pieces.size());
}

void run_group(const Job& job, size_t group, const float* scalars) {
  for (size_t i = job.groups[group]; i < job.groups[group + 1]; ++i) {
    const Piece& piece = job.pieces[i];
    job.pass(job.slots[static_cast<size_t>(piece.tensor)].data(), piece.first, piece.n, scalars);
  }
}

void run_once(const Job& job, const float* scalars) {
  const size_t groups = job.groups.size() - 1;
  if (job.threads == 1) {
    for (size_t g = 0; g < groups; ++g) run_group(job, g, scalars);
    return;
  }
#ifdef _OPENMP
  std::atomic<size_t> next{0};
  const bool fixed = groups <= static_cast<size_t>(job.threads);  // then every thread meets its part in its own cache
#pragma omp parallel num_threads(job.threads)
  if (fixed) {
    const auto me = static_cast<size_t>(omp_get_thread_num());
    if (me < groups) run_group(job, me, scalars);
  } else {
    for (size_t g; (g = next.fetch_add(1, std::memory_order_relaxed)) < groups;) run_group(job, g, scalars);
  }
#endif
}

}  // namespace
}  // namespace nos::bench

extern "C" {

// Index of a pass, or -1.
int nosb_find(const char* name) {
  int i = 0;
  for (const auto& e : nos::bench::kPasses) {
    if (!std::strcmp(e.name, name)) return i;
    ++i;
  }
  return -1;
}

// data: pointers[slot * tensors + tensor]; group: elements that a thread takes at a time.
void* nosb_make(int pass, int64_t tensors, const int64_t* numel, float* const* data, int64_t group, int threads) {
  const auto& entry = nos::bench::kPasses[pass];
  auto* job = new nos::bench::Job{entry.pass, {}, {}, {}, threads};
  for (int64_t t = 0; t < tensors; ++t) {
    job->slots.emplace_back();
    for (int s = 0; s < entry.slots; ++s) job->slots.back().push_back(data[s * tensors + t]);
  }
  nos::bench::cut(*job, numel, tensors, group);
  return job;
}

void nosb_run(void* job, const float* scalars, int64_t repeat) {
  for (int64_t i = 0; i < repeat; ++i) nos::bench::run_once(*static_cast<nos::bench::Job*>(job), scalars);
}

void nosb_free(void* job) { delete static_cast<nos::bench::Job*>(job); }
}
