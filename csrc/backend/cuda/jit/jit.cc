// This file is built only with the CUDA toolkit. It loads machine code onto the device, through the runtime that the
// module links statically.
#include "jit.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <stdexcept>

#include "promote.h"
#include "source.h"

namespace nos::cuda::jit {
namespace {

constexpr int kMostDevices = 64;

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // clears the error, which is reported here, so that no later launch finds it
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}

// The number of an architecture: 90 for sm_90.
int arch_of(int device) {
  static std::array<std::atomic<int>, kMostDevices> known{};
  if (device < kMostDevices && known[static_cast<size_t>(device)]) return known[static_cast<size_t>(device)];
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  if (device < kMostDevices) known[static_cast<size_t>(device)] = 10 * major + minor;
  return 10 * major + minor;
}

// Loading may allocate memory. If another thread captures a stream, CUDA would otherwise refuse that and end the
// capture.
class RelaxedCapture {
 public:
  RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

void load(Build& build) {
  try {
    const RelaxedCapture relaxed;
    cudaLibrary_t library = nullptr;  // never unloaded: captured graphs may hold its kernel
    cudaKernel_t kernel = nullptr;
    check(cudaLibraryLoadData(&library, build.cubin().data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
          "cudaLibraryLoadData");
    check(cudaLibraryGetKernel(&kernel, library, kKernelName), "cudaLibraryGetKernel");
    build.kernel = {reinterpret_cast<const void*>(kernel), kThreads};
  } catch (const std::runtime_error& e) {
    build.load_error = e.what();
  }
}

}  // namespace

const Kernel* request(const Program& program, const std::array<DType, kMaxSlots>& dtypes, Mode mode) {
  if (mode == Mode::never) return nullptr;
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  Build* const build = promoted(program, dtypes, arch_of(device), mode);
  if (!build) return nullptr;
  std::call_once(build->loading, load, *build);
  if (build->kernel.function) return &build->kernel;
  if (mode == Mode::always)
    throw std::runtime_error("jit='always': the driver refuses the compiled rule (" + build->load_error +
                             "); a driver as new as NVRTC takes it, and jit='auto' runs in the interpreter");
  return nullptr;
}

}  // namespace nos::cuda::jit
