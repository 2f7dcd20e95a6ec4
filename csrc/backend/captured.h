// Owns the contract of a captured step: a step whose launches a graph of the device holds and replays, while its
// programs, its scalars and the number of the step change in the device's memory between the replays.
#pragma once
#include <cstdint>
#include <span>

#include "../plan/step.h"
#include "../program/program.h"
#include "place.h"

namespace nos {

// The room that later rules may use. 0 instructions stand for what the first rules need, in a step that loads no other.
struct Capacity {
  uint32_t instructions = 512;  // of device code, per program
  uint32_t scalars = 128;    // constants, and instructions of scalar code, per program; cut to what a program can have
  uint32_t temporaries = 4;  // overflow slots
};

// Callers hold the GIL. Only launch() may be captured; the others are refused inside a capture, but for the setters of
// a step that was made to be set there: what they set is in place before the graph runs.
class CapturedStep {
 public:
  CapturedStep() = default;
  virtual ~CapturedStep() = default;  // allowed anywhere, also inside somebody's capture
  CapturedStep(const CapturedStep&) = delete;
  CapturedStep& operator=(const CapturedStep&) = delete;

  // Row r's scalars: one value per hyperparameter of its program. sources: device memory that values are read from
  // instead, or null; wide: bit i where that is a double.
  virtual void set_row(uint32_t r, uint64_t seed, double total_steps, std::span<const double> hypers,
                       std::span<const void* const> sources, uint64_t wide, const Place& place) = 0;
  // counter: device memory that holds the number of the step, or null where the step counts for itself.
  virtual void set_head(uint32_t steps_done, double factor, Rounding rounding, const double* counter,
                        const Place& place) = 0;
  // Puts a program in the place of number k. Throws std::invalid_argument where there is no room for it.
  virtual void load(uint32_t k, const Program& program, const Place& place) = 0;
  virtual void launch(const Place& place) = 0;
  virtual uint32_t steps_done(const Place& place) = 0;  // waits for the place's stream
};

}  // namespace nos
