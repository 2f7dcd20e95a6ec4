// Owns Place: where and when a call's work is done.
#pragma once

namespace nos {

struct Place {
  int device = 0;          // number of the device among those of its kind
  void* stream = nullptr;  // the queue of the framework's work on it (a cudaStream_t); null where there is none
};

}  // namespace nos
