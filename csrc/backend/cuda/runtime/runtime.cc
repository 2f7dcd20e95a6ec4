#include "runtime.h"

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

namespace nos::cuda {
namespace {

std::string remedy(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "; the update itself needs only small tables: free memory, for example with torch.cuda.empty_cache()";
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
      return "; move the tensors to the CPU, or install a driver for CUDA " + std::to_string(CUDART_VERSION / 1000);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidDeviceFunction:
      return "; this build has no code for the device: rebuild with its number in CMAKE_CUDA_ARCHITECTURES "
             "(docs/howto/cuda.md)";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureImplicit:
      return "; inside a graph capture use an optimizer with capturable=True, or nos_ext.CapturedStep";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
      return "; the device's context is lost and the process must be restarted. The fault may be of an earlier kernel: "
             "run with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer, to find it";
    default:
      return "";
  }
}

std::map<int, std::vector<std::unique_ptr<Twin>>>& pool() {
  static auto& twins =
      *new std::map<int, std::vector<std::unique_ptr<Twin>>>();  // never freed: CUDA may be gone at exit
  return twins;
}
constexpr size_t kPooled = 64;  // twins kept per device
int g_beside = 0;  // number of uploads beside a capture that are under way; while there is one, nothing may be freed

}  // namespace

void check(cudaError_t status, const char* tried) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // an error that is reported must not be found again by the next caller
  throw CudaError(std::string("CUDA: ") + tried + " failed: " + cudaGetErrorString(status) + " (" +
                  cudaGetErrorName(status) + ")" + remedy(status));
}

const Properties& properties(int device) {
  static std::map<int, Properties> known;
  if (const auto it = known.find(device); it != known.end()) return it->second;
  int multiprocessors = 0, shared = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "reading device properties");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "reading device properties");
  constexpr int kDeclared = 1024;  // above the static shared memory of every kernel
  return known[device] = {multiprocessors, static_cast<size_t>(shared - kDeclared)};
}

OnDevice::OnDevice(int device) {
  check(cudaGetDevice(&before_), "reading the current device");
  if (before_ != device) check(cudaSetDevice(device), "selecting the tensors' device");
}
OnDevice::~OnDevice() { (void)cudaSetDevice(before_); }

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t answer = cudaStreamIsCapturing(stream, &status);
  if (answer == cudaErrorStreamCaptureImplicit) return (void)cudaGetLastError(), true;
  check(answer, "asking a stream whether it is captured");
  return status != cudaStreamCaptureStatusNone;
}

BesideCapture::BesideCapture(int device) {
  static auto& streams = *new std::map<int, cudaStream_t>();  // one per device, for ever
  check(cudaThreadExchangeStreamCaptureMode(&before_), "allowing uploads beside a capture");
  cudaStream_t& stream = streams[device];
  if (!stream) {
    const cudaError_t status = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (status != cudaSuccess) {
      stream = nullptr;
      (void)cudaThreadExchangeStreamCaptureMode(&before_);
      check(status, "making a stream");
    }
  }
  stream_ = stream;
  ++g_beside;
}
BesideCapture::~BesideCapture() {
  --g_beside;
  (void)cudaThreadExchangeStreamCaptureMode(&before_);
}

void BesideCapture::finish() { check(cudaStreamSynchronize(stream_), "waiting for an upload"); }

Twin::Twin(int, size_t bytes) : bytes_(bytes) {
  try {
    check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "making an event");
    check(cudaEventCreateWithFlags(&used_, cudaEventDisableTiming), "making an event");
    check(cudaMalloc(reinterpret_cast<void**>(&device_), bytes), "allocating device memory for the tables of a step");
  } catch (...) {
    free();
    throw;
  }
}
Twin::~Twin() { free(); }

void Twin::free() {
  if (device_) (void)cudaFree(device_);  // waits for the device
  if (host_) (void)cudaFreeHost(host_);
  if (copied_) (void)cudaEventDestroy(copied_);
  if (used_) (void)cudaEventDestroy(used_);
}

unsigned char* Twin::host() {
  if (!host_)
    check(cudaHostAlloc(reinterpret_cast<void**>(&host_), bytes_, cudaHostAllocDefault),
          "allocating pinned memory for the tables of a step");
  check(cudaEventSynchronize(copied_), "waiting for a copy");  // an event that was never recorded counts as complete
  return host_;
}

void Twin::use_on(cudaStream_t stream) {
  if (has_stream_ && stream != stream_) {
    if (!note())
      throw CudaError(
          "CUDA: the tables of this step were last used on a stream that is being captured now, so no other stream can "
          "wait for them; take the step once more, or synchronize, before the capture");
    check(cudaStreamWaitEvent(stream, used_, 0), "ordering two streams");
  }
  stream_ = stream;
  has_stream_ = true;
  noted_ = false;
}

void Twin::upload(size_t first, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(device_ + first, host_ + first, bytes, cudaMemcpyHostToDevice, stream), "copying tables");
  check(cudaEventRecord(copied_, stream), "noting a copy");
}

bool Twin::note() {
  if (!has_stream_ || noted_) return true;
  if (is_capturing(stream_)) return false;
  if (cudaEventRecord(used_, stream_) != cudaSuccess) {
    (void)cudaGetLastError();  // the stream is gone: wait for everything instead
    check(cudaDeviceSynchronize(), "waiting for the device");
  }
  return noted_ = true;
}

bool Twin::idle() { return note() && cudaEventQuery(used_) == cudaSuccess && cudaEventQuery(copied_) == cudaSuccess; }

std::shared_ptr<Twin> take_twin(int device, size_t bytes) {
  const size_t rounded = std::bit_ceil(std::max<size_t>(bytes, 4096));
  auto& list = pool()[device];
  std::unique_ptr<Twin> twin;
  for (auto it = list.begin(); it != list.end();) {
    const bool fits = !twin && (*it)->bytes() == rounded, surplus = list.size() > kPooled && !g_beside;
    if (!(fits || surplus) || !(*it)->idle()) {
      ++it;
      continue;
    }
    if (fits) twin = std::move(*it);
    it = list.erase(it);
  }
  (void)cudaGetLastError();  // "not ready" is no error
  if (!twin) twin = std::make_unique<Twin>(device, rounded);
  return {twin.release(), [device](Twin* t) {
            std::unique_ptr<Twin> owned(t);
            try {
              const OnDevice on(device);
              (void)owned->note();
              pool()[device].push_back(std::move(owned));
            } catch (const std::exception&) {  // there is no CUDA context any more, and the memory went with it
              (void)owned.release();
            }
          }};
}

}  // namespace nos::cuda
