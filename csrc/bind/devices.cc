#include "devices.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "call.h"
#include "tensor_type.h"

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

namespace {

// The plans of the last calls, each used again while its tensors are the same and patched while only gradients move.
struct Entry {
  Snapshot snapshot;
  std::vector<uint32_t> group_of;
  std::vector<std::shared_ptr<const cuda::DeviceCode>> code;  // keeps the addresses that are compared from being reused
  uint32_t tensor_index, population;
  int device;
  Plan plan;
  std::optional<cuda::Ready> ready;
};
constexpr size_t kPlans = 8;

bool same_programs(const Entry& e, std::span<const Program* const> programs) {
  if (e.code.size() != programs.size()) return false;
  for (size_t k = 0; k < programs.size(); ++k)
    if (e.code[k] != programs[k]->attached(Attachment::cuda_code)) return false;
  return true;
}

std::shared_ptr<Entry> entry_for(std::span<const Program* const> programs, const TensorLists& tensors,
                                 uint32_t tensor_index, std::span<const uint32_t> group_of, uint32_t population,
                                 int device, cudaStream_t stream) {
  static auto& list = *new std::vector<std::shared_ptr<Entry>>();  // guarded by the GIL; leaked: CUDA may end before
  for (auto it = list.begin(); it != list.end(); ++it) {
    Entry& e = **it;
    if (e.device != device || e.tensor_index != tensor_index || e.population != population ||
        !std::ranges::equal(group_of, e.group_of) || !same_programs(e, programs))
      continue;
    const Likeness likeness = tensors.compare(e.snapshot);
    if (likeness == Likeness::different) continue;
    const bool moved = likeness == Likeness::moved;
    if (moved && !move_gradients(e.plan, tensors.lists()[bytecode::kG], tensor_index)) break;
    if (moved) e.ready->move(e.plan, stream);
    tensors.refresh(e.snapshot);
    std::rotate(list.begin(), it, it + 1);
    return list.front();
  }
  tensors.check_storage();
  auto made = std::make_shared<Entry>();
  made->plan = make_plan(tensors.lists(), tensor_index, population);
  if (!group_of.empty())
    for (PlannedTensor& t : made->plan.tensors) t.row = group_of[t.index - tensor_index];
  made->ready.emplace(made->plan, programs, device, stream);
  made->snapshot = tensors.snapshot();
  made->group_of.assign(group_of.begin(), group_of.end());
  made->code = made->ready->job().lowered;
  made->tensor_index = tensor_index;
  made->population = population;
  made->device = device;
  if (list.size() >= kPlans) list.pop_back();
  list.insert(list.begin(), made);
  return made;
}

}  // namespace

RunOnCuda ready_on_cuda(std::span<const Program* const> programs, const TensorLists& tensors, uint32_t tensor_index,
                        std::span<const uint32_t> group_of, uint32_t population) {
  const auto& params = tensors.lists()[0].tensors;
  const size_t first = static_cast<size_t>(
      std::find_if(params.begin(), params.end(), [](const TensorRef& t) { return t.on_cuda; }) - params.begin());
  const int device = params[first].device;
  const cuda::OnDevice on(device);
  auto* stream = static_cast<cudaStream_t>(current_stream(tensors.object(first), device));
  if (cuda::is_capturing(stream))
    throw std::runtime_error(
        "this call is inside a CUDA graph capture, which would freeze lr, the step and the addresses of its tables; "
        "make an optimizer with capturable=True, or a nos_ext.CapturedStep before the capture, and call that inside "
        "it");
  return [=, entry = entry_for(programs, tensors, tensor_index, group_of, population, device, stream)](
             const cpu::StepArgs& args) {
    const cuda::OnDevice here(device);
    entry->ready->run(
        {args.rows, args.row_sizes, args.num_rows, args.seeds, args.step, args.factor, args.stochastic_rounding},
        programs, stream);
  };
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

RunOnCuda ready_on_cuda(std::span<const Program* const>, const TensorLists& tensors, uint32_t,
                        std::span<const uint32_t>, uint32_t) {
  on_cuda(tensors);  // throws
  return {};
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
