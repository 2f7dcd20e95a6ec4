// Owns the contract of a back-end: it makes a checked plan ready for the device that the tensors are on, and the result
// runs it. Whoever adds a back-end implements these two classes in a folder of its own and names it in registry.cc;
// nothing else knows a back-end by name.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../plan/plan.h"
#include "../plan/step.h"
#include "../program/program.h"

namespace nos {

// Where and when a call's work is done.
struct Place {
  int device = 0;          // number of the device among those of its kind
  void* stream = nullptr;  // the queue of the framework's work on it (a cudaStream_t); null where there is none
};

// A plan that has been made ready. It may be run many times, as long as the pointers in the plan stay valid. One thread
// at a time makes, changes and asks it: the one that holds the GIL.
class Job {
 public:
  explicit Job(Plan made) : plan(std::move(made)) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  Plan plan;

  // Whether the job would be the same if it were made of these programs now.
  virtual bool serves(std::span<const Program* const> programs) const = 0;
  // To be called after the gradients of the plan have been given other addresses (move_gradients).
  virtual void move(const Place& place) = 0;
  // Nanoseconds for which run() keeps the calling thread busy, roughly. Where it is long, run() is called without the
  // GIL, after get_ready() was called with it.
  virtual int64_t busy() const = 0;
  virtual void get_ready(const StepArgs& args) = 0;
  // programs: those that the job serves; they may be other objects than those that it was made of. Throws before the
  // first write or not at all.
  virtual void run(const StepArgs& args, std::span<const Program* const> programs, const Place& place) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual bool has_streams() const = 0;  // whether a Place needs its stream
  // Throws where no step can run at all, whatever the tensors are: while somebody else captures the stream into a CUDA
  // graph, for example.
  virtual void check(const Place& place) const = 0;
  // programs[t.program + slice] is the program of a tensor's slice.
  virtual std::shared_ptr<Job> prepare(Plan plan, std::span<const Program* const> programs,
                                       const Place& place) const = 0;
};

// The back-end of tensors on the CPU, or on a CUDA device. Throws TensorError where this build has none.
const Backend& backend_of(bool on_cuda);

// What a bug report needs to know of CUDA.
struct CudaReport {
  bool enabled = false;  // whether this build has the CUDA back-end
  std::string toolkit, architectures, status, jit;
  std::vector<std::string> devices;  // a line of text for each device
};
CudaReport cuda_report();

const Backend& cpu_backend();
const Backend& cuda_backend();  // defined only in a build that has it

}  // namespace nos
