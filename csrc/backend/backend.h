// Owns the contract of a back-end: it makes a checked plan ready for the device that the tensors are on, and the result
// runs it. Whoever adds a back-end implements these two classes in a folder of its own and adds a row to
// plan/devices.def; nothing else knows a back-end by name.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../plan/plan.h"
#include "../plan/step.h"
#include "../program/program.h"
#include "captured.h"
#include "place.h"

namespace nos {

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
  virtual bool has_streams() const = 0;  // whether a Place needs its stream
  // Whether its jobs of programs with reductions take StepArgs::of_rows.
  virtual bool takes_rows_apart() const { return false; }
  // Throws where no step can run at all, whatever the tensors are: while somebody else captures the stream into a CUDA
  // graph, for example.
  virtual void check(const Place& place) const = 0;
  // programs[t.program + slice] is the program of a tensor's slice.
  virtual std::shared_ptr<Job> prepare(Plan plan, std::span<const Program* const> programs,
                                       const Place& place) const = 0;
  // A step that a graph of the device can hold. row_program[r]: the program whose scalars row r holds; in_capture: it
  // may be made and set inside a capture. Throws TensorError where the device has no graphs.
  virtual std::unique_ptr<CapturedStep> capture(const Plan& plan, std::span<const Program* const> programs,
                                                std::span<const uint32_t> row_program, Capacity capacity,
                                                bool in_capture, const Place& place) const = 0;
};

// What a bug report needs to know of a back-end, also of one that this build lacks: names and values.
using Facts = std::vector<std::pair<std::string, std::variant<bool, int, std::string, std::vector<std::string>>>>;

// The back-end of a kind of device. Throws TensorError where this build has none.
const Backend& backend_of(DeviceKind kind);
// Of every kind of device, by its name.
std::vector<std::pair<std::string, Facts>> facts_of_backends();

// What a folder <name> defines: <name>_backend(), which throws TensorError where it is not compiled, and
// <name>_facts().
#define NOS_DEVICE(name, dlpack)   \
  const Backend& name##_backend(); \
  Facts name##_facts();
#include "../plan/devices.def"
#undef NOS_DEVICE

}  // namespace nos
