// Owns the use of the CUDA runtime: errors that say what to do, properties of devices, and memory that host and device
// both hold. Callers hold the GIL: nothing here is safe for threads.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <stdexcept>

#include "../../backend.h"

namespace nos::cuda {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws CudaError for anything but success. The message has what was tried, CUDA's own words, and what to do.
void check(cudaError_t status, const char* tried);

struct Properties {
  int multiprocessors;
  size_t shared_limit;  // bytes of dynamic shared memory that a block may have beyond what kernels declare
};
const Properties& properties(int device);

// Makes `device` the current one for a scope.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

inline cudaStream_t stream_of(const Place& place) { return static_cast<cudaStream_t>(place.stream); }

// This is also true for the legacy default stream while a capture on the device forbids its use.
bool is_capturing(cudaStream_t stream);

// A stream for allocations and uploads while another one is being captured: its work is no part of the graph, and is
// done at finish(). The device must be the current one.
class BesideCapture {
 public:
  explicit BesideCapture(int device);
  ~BesideCapture();
  BesideCapture(const BesideCapture&) = delete;
  BesideCapture& operator=(const BesideCapture&) = delete;

  cudaStream_t stream() const { return stream_; }
  void finish();

 private:
  cudaStreamCaptureMode before_ = cudaStreamCaptureModeRelaxed;
  cudaStream_t stream_ = nullptr;
};

// Device memory, and pinned host memory of the same size, which is made when it is first asked for. Its uses on several
// streams are ordered: a stream that takes over waits for the one before.
//
// If an event is recorded on a stream that is being captured, the capture makes the event a part of itself, and later
// whoever waits for that event as well. So nothing is recorded on such a stream. What was used there must have been
// noted before the capture.
class Twin {
 public:
  Twin(int device, size_t bytes);
  ~Twin();
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;

  size_t bytes() const { return bytes_; }
  unsigned char* device() const { return device_; }
  unsigned char* host();  // to be written: waits for copies that still read it
  void use_on(cudaStream_t stream);
  void upload(size_t first, size_t bytes, cudaStream_t stream);  // from host to device; use_on(stream) comes first
  bool note();  // marks the end of the uses so far; false when that cannot be done while their stream is captured
  bool idle();  // whether no work that uses it is left

 private:
  void free();
  size_t bytes_;
  unsigned char *host_ = nullptr, *device_ = nullptr;
  cudaEvent_t copied_ = nullptr, used_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool has_stream_ = false, noted_ = false;
};

// Twins that are no longer used are kept and given out again once the device has finished with them, so a training loop
// whose gradients move allocates nothing. Putting one back is allowed anywhere, also inside somebody's capture, since
// the garbage collector chooses the moment.
std::shared_ptr<Twin> take_twin(int device, size_t bytes);

}  // namespace nos::cuda
