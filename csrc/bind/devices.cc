#include "devices.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "call.h"
#include "dlpack.h"

#ifdef NOS_HAVE_CUDA
#include "../backend/cuda/engine.h"
#endif

namespace py = pybind11;

namespace nos::bind {

bool on_cuda(const TensorLists& tensors) {
  const auto& params = tensors.lists()[0].tensors;
  const bool cuda = std::any_of(params.begin(), params.end(), [](const TensorRef& t) { return t.on_cuda; });
#ifndef NOS_HAVE_CUDA
  if (cuda)
    throw TensorError("params are on a CUDA device and this build has no CUDA back-end (" NOS_CUDA_STATUS
                      "); move the tensors to the CPU");
#endif
  return cuda;
}

#ifdef NOS_HAVE_CUDA

void* current_stream(const TensorLists& tensors) {
  const auto& params = tensors.lists()[0].tensors;
  size_t i = 0;
  while (!params[i].on_cuda) ++i;
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(tensors.objects()[i]));
  const auto capsule = py::reinterpret_steal<py::object>(PyObject_GetAttrString(type, "__dlpack_c_exchange_api__"));
  if (!capsule) throw py::error_already_set();
  const auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  void* stream = nullptr;
  if (!api->current_work_stream || api->current_work_stream(kDLCUDA, params[i].device, &stream) != 0) {
    if (PyErr_Occurred()) throw py::error_already_set();
    throw std::runtime_error("the framework of params[" + std::to_string(i) + "] does not tell its current stream");
  }
  return stream;
}

namespace {

// The plans of the last calls: a plan is used again while every address, shape and stride is the same.
struct Entry {
  std::vector<int64_t> signature;
  std::vector<PyObject*> objects;                             // for identity only
  std::vector<std::shared_ptr<const cuda::DeviceCode>> code;  // keeps the addresses that are compared from being reused
  uint32_t tensor_index, population;
  int device;
  std::unique_ptr<cuda::Ready> ready;
};
constexpr size_t kPlans = 8;

std::vector<Entry>& plans() {
  static auto& list = *new std::vector<Entry>();  // guarded by the GIL; leaked, as CUDA may be gone at exit
  return list;
}

bool same_programs(const Entry& e, std::span<const Program* const> programs) {
  if (e.code.size() != programs.size()) return false;
  for (size_t k = 0; k < programs.size(); ++k)
    if (e.code[k] != programs[k]->attached(Attachment::cuda_code)) return false;
  return true;
}

cuda::Ready& ready_for(std::span<const Program* const> programs, const TensorLists& tensors, uint32_t tensor_index,
                       const std::vector<uint32_t>& group_of, uint32_t population, int device, cudaStream_t stream) {
  std::vector<int64_t> signature = tensors.signature();
  signature.insert(signature.end(), group_of.begin(), group_of.end());
  auto& list = plans();
  const auto found = std::find_if(list.begin(), list.end(), [&](const Entry& e) {
    return e.device == device && e.tensor_index == tensor_index && e.population == population &&
           e.signature == signature && same_programs(e, programs);
  });
  if (found != list.end()) {
    tensors.check_negation(found->objects);
    std::rotate(list.begin(), found, found + 1);
    return *list.front().ready;
  }
  tensors.check_negation({});
  Plan plan = make_plan(tensors.lists(), tensor_index, population);
  if (!group_of.empty())
    for (PlannedTensor& t : plan.tensors) t.row = group_of[t.index - tensor_index];
  if (list.size() >= kPlans) list.pop_back();
  auto ready = std::make_unique<cuda::Ready>(plan, programs, device, stream);
  auto code = ready->job().lowered;
  list.insert(list.begin(), Entry{std::move(signature), tensors.objects(), std::move(code), tensor_index, population,
                                  device, std::move(ready)});
  return *list.front().ready;
}

}  // namespace

int device_of(const TensorLists& tensors) {
  for (const TensorRef& t : tensors.lists()[0].tensors)
    if (t.on_cuda) return t.device;
  return -1;
}

void run_on_cuda(std::span<const Program* const> programs, const TensorLists& tensors, uint32_t tensor_index,
                 const std::vector<uint32_t>& group_of, uint32_t population, const cpu::StepArgs& args) {
  const int device = device_of(tensors);
  const cuda::OnDevice on(device);
  auto* stream = static_cast<cudaStream_t>(current_stream(tensors));
  if (cuda::is_capturing(stream))
    throw std::runtime_error(
        "this call is inside a CUDA graph capture, which would freeze lr, the step and the addresses of its tables; "
        "make "
        "a nos_ext.CapturedStep before the capture and call that inside it");
  cuda::Ready& ready = ready_for(programs, tensors, tensor_index, group_of, population, device, stream);
  ready.run({args.rows, args.row_sizes, args.num_rows, args.seeds, args.step, args.factor}, programs, stream);
}

py::dict cuda_info() {
  std::string problem;
  const std::vector<std::string> devices = cuda::device_names(problem);
  py::dict out;
  out["enabled"] = true;
  out["toolkit"] = NOS_CUDA_TOOLKIT;
  out["architectures"] = NOS_CUDA_ARCHITECTURES;
  out["devices"] = devices;
  out["status"] = problem.empty() ? "on" : "built, but there is no device to use: " + problem;
  out["jit"] = cuda::jit::status();
  return out;
}

#else

void* current_stream(const TensorLists&) { return nullptr; }
void run_on_cuda(std::span<const Program* const>, const TensorLists& tensors, uint32_t, const std::vector<uint32_t>&,
                 uint32_t, const cpu::StepArgs&) {
  on_cuda(tensors);  // throws
}

py::dict cuda_info() {
  py::dict out;
  out["enabled"] = false;
  out["toolkit"] = NOS_CUDA_TOOLKIT;
  out["architectures"] = "";
  out["devices"] = py::list();
  out["status"] = NOS_CUDA_STATUS;
  out["jit"] = "off: no CUDA";
  return out;
}

#endif

}  // namespace nos::bind
