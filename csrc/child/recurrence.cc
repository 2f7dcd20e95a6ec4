#include "recurrence.h"

#include <algorithm>

namespace nos::child {

Recurrence::Recurrence(const LayerPlace& place, int units)
    : kernels_(place.kernels),
      length_(place.input.tokens),
      units_(units),
      lanes_(place.lanes),
      forward_(units, 3 * units),
      back_(3 * units, units),
      gates_(floats(length_, 4 * units, lanes_)),
      zeros_(floats(units, lanes_)),
      carry_(floats(units, lanes_)),
      sums_(floats(4, units)),
      turned_(floats(kTurned, row_of(units))),
      products_(floats(3 * units, row_of(units))) {}

std::vector<std::vector<int64_t>> Recurrence::weights(int inputs, int units) {
  return {{3 * units, inputs}, {3 * units, units}, {3 * units}, {3 * units}};
}

void Recurrence::pack_input(std::span<const Weight> weights, Panels& panels, float* start) const {
  const int inputs = panels.channels();
  panels.pack(weights[0].value, [&](int row, int c) { return at(theirs(row), inputs, c); });
  for (int row = 0; row < 3 * units_; ++row) {
    const int k = theirs(row);
    start[row] = row < units_ ? weights[2].value[k] : weights[2].value[k] + weights[3].value[k];
  }
}

void Recurrence::pack_input_back(std::span<const Weight> weights, Panels& panels) const {
  const int inputs = panels.filters();
  panels.pack(weights[0].value, [&](int c, int row) { return at(theirs(row), inputs, c); });
}

void Recurrence::unpack_input(const float* products, int inputs, float* gradient) const {
  for (int row = 0; row < 3 * units_; ++row)
    std::copy_n(products + at(row, row_of(inputs), 0), inputs, gradient + at(theirs(row), inputs, 0));
}

void Recurrence::forward(std::span<const Weight> weights, Strip out) {
  forward_.pack(weights[1].value, [this](int row, int unit) { return at(row, units_, unit); });
  for (int p = 0; p < length_; ++p) {
    float* q = gates(3 * units_, p).data;
    for (int u = 0; u < units_; ++u) std::fill_n(q + u * lanes_, lanes_, weights[3].value[2 * units_ + u]);
    if (p)
      kernels_.multiply_positions(forward_.data(), nullptr, units_, 3 * units_, {out.at(p - 1), 0}, gates(units_, p), 1,
                                  lanes_);
    kernels_.gate(gates(0, p).data, p ? out.at(p - 1) : zeros_.data(), out.at(p), count());
  }
}

// Back through time; what is left then are sums over all positions.
void Recurrence::backward(std::span<const Weight> weights, Strip out, Strip gradient, int examples) {
  back_.pack(weights[1].value, [this](int unit, int row) { return at(row, units_, unit); });
  std::fill_n(carry_.data(), carry_.size(), 0.0f);
  for (int p = length_ - 1; p >= 0; --p) {
    kernels_.gate_input(gates(0, p).data, p ? out.at(p - 1) : zeros_.data(), gradient.at(p), carry_.data(), count());
    if (p)
      kernels_.multiply_positions(back_.data(), nullptr, 3 * units_, units_, gates(units_, p), {carry_.data(), 0}, 1,
                                  lanes_);
  }
  kernels_.position_weights(out, units_, gates(units_, 1), 3 * units_, length_ - 1, lanes_, examples, turned_.data(),
                            products_.data());
  for (int row = 0; row < 3 * units_; ++row)
    std::copy_n(products_.data() + at(row, row_of(units_), 0), units_, weights[1].gradient + at(row, units_, 0));
  kernels_.sum_positions(gates(0, 0), 4 * units_, length_, lanes_, sums_.data());
  for (int row = 0; row < 3 * units_; ++row) weights[2].gradient[theirs(row)] = sums_.data()[row];
  std::copy_n(sums_.data() + units_, 3 * units_, weights[3].gradient);
}

size_t Recurrence::memory() const {
  return (forward_.size() + back_.size() + gates_.size() + zeros_.size() + carry_.size() + sums_.size() +
          turned_.size() + products_.size()) *
         sizeof(float);
}

}  // namespace nos::child
