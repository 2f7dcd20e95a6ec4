#include "training.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "../program/passes.h"

namespace nos::child {

Training::Training(Child& child, const Program& program, std::vector<double> hypers, double total_steps, uint64_t seed)
    : child_(child),
      program_(program),
      hypers_(std::move(hypers)),
      total_steps_(total_steps),
      seed_(seed),
      scalars_(static_cast<size_t>(program.num_scalars())) {
  if (hypers_.size() != program.hypers().size()) throw std::invalid_argument("hypers: one value per hyperparameter");
  const auto counts = [&] {
    std::vector<int64_t> out;
    for (const auto& shape : child.shapes()) {
      int64_t n = 1;
      for (const int64_t d : shape) n *= d;
      out.push_back(n);
    }
    return out;
  }();
  size_t total = 0;
  for (const int64_t n : counts) total += (static_cast<size_t>(n) + 15) / 16 * 16;
  states_ = Floats(total * static_cast<size_t>(program.num_states()));

  std::vector<TensorList> lists(static_cast<size_t>(2 + program.num_states()));
  lists[0].name = "params";
  lists[1].name = "grads";
  for (int s = 0; s < program.num_states(); ++s) lists[static_cast<size_t>(2 + s)].name = "state";
  static constexpr int64_t kOne = 1;
  float* next = states_.data();
  for (size_t i = 0; i < counts.size(); ++i)
    for (size_t l = 0; l < lists.size(); ++l) {
      TensorRef t;
      t.data = l == 0 ? child.weights()[i].value : l == 1 ? child.weights()[i].gradient : next;
      const bool number = l >= 2 && program.is_per_tensor(static_cast<int>(l) - 2);
      if (l >= 2) next += (static_cast<size_t>(counts[i]) + 15) / 16 * 16;
      t.shape = number ? &kOne : &counts[i];
      t.strides = &kOne;
      t.ndim = 1;
      t.numel = *t.shape;
      lists[l].tensors.push_back(t);
    }
  const Program* programs[] = {&program_};
  job_ = cpu_backend().prepare(make_plan(lists, 0, 0, number_slots(programs)), programs, {});
}

Training::Progress Training::run(const Examples& data, std::span<const int64_t> order, std::span<const double> rates,
                                 double limit) {
  const auto batch = static_cast<size_t>(child_.batch());
  Progress out{0, 0, true};
  const double* rows[] = {scalars_.data()};
  const size_t sizes[] = {scalars_.size()};
  const uint64_t seeds[] = {seed_};
  const Program* programs[] = {&program_};
  for (; order.size() >= batch; order = order.subspan(batch)) {
    // a plain average of the first ten batches, then an exponential one: a child may see a dozen batches in all
    const float momentum = std::max(0.1f, 1.0f / static_cast<float>(step_ + 1));
    const Loss loss = child_.gradients(data, order.first(batch), momentum);
    const double mean = loss.sum / static_cast<double>(std::max<int64_t>(loss.counted, 1));
    if (!(mean < limit)) {
      out.alive = false;
      break;
    }
    if (!rates.empty())
      for (size_t h = 0; h < hypers_.size(); ++h)
        if (program_.hypers()[h].name == "lr") hypers_[h] = rates[static_cast<size_t>(out.steps)];
    ++step_;
    ++out.steps;
    out.loss += mean;
    program_.eval_scalars(static_cast<double>(step_), total_steps_, hypers_, scalars_);
    job_->run({rows, sizes, 1, seeds, static_cast<uint32_t>(step_), 1.0}, programs, {});
  }
  return out;
}

}  // namespace nos::child
