// Owns Training: a child and the rule that trains it. A whole stretch of steps is one call, so that nothing between two
// steps waits for the caller. A step takes a batch, computes loss and gradients, and lets the rule update the weights.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "../backend/backend.h"
#include "child.h"

namespace nos::child {

class Training {
 public:
  // hypers: one value per hyperparameter of the program. total_steps: T; NaN where the rule does not read it. seed: of
  // the rule's random draws. States are zero at first. child and program must live as long.
  Training(Child& child, const Program& program, std::vector<double> hypers, double total_steps, uint64_t seed);

  struct Progress {
    int64_t steps;  // that were taken
    double loss;    // sum over them of the mean loss of the batch, nats
    bool alive;     // false where a loss was not below the limit, NaN among them: that step was not taken
  };
  // order: numbers of examples, a batch after the other, as many as child.batch() each. rates: the learning rate of
  // each of these steps; empty for that of `hypers`. Allocates nothing.
  Progress run(const Examples& data, std::span<const int64_t> order, std::span<const double> rates, double limit);

  int64_t steps() const { return step_; }
  size_t memory() const { return states_.size() * sizeof(float); }  // bytes beside the child's

 private:
  Child& child_;
  const Program& program_;
  std::vector<double> hypers_;
  const double total_steps_;
  const uint64_t seed_;
  Floats states_;
  std::vector<double> scalars_;
  std::shared_ptr<Job> job_;
  int64_t step_ = 0;
};

}  // namespace nos::child
