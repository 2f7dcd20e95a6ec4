// Owns Ring: pieces of memory that are used in turn, so that the host need not wait for the last step before it writes
// the next one.
#pragma once
#include <memory>
#include <vector>

#include "runtime.h"

namespace nos::cuda {

class Ring {
 public:
  Twin& next(int device, size_t bytes) {
    if (twins_.size() < kTurns) {
      twins_.push_back(nullptr);
      turn_ = twins_.size() - 1;
    }
    std::shared_ptr<Twin>& twin = twins_[turn_++ % kTurns];
    if (!twin || twin->bytes() < bytes) twin = take_twin(device, bytes);
    return *twin;
  }

 private:
  static constexpr size_t kTurns = 4;
  std::vector<std::shared_ptr<Twin>> twins_;
  size_t turn_ = 0;
};

}  // namespace nos::cuda
