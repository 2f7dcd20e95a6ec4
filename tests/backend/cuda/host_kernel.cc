// The CUDA interpreter on the host, for tests: a C interface over plan, tables and the kernel body. Loaded by host.py.
#include <cstring>
#include <exception>
#include <string>

#include "../../../csrc/backend/cuda/host_run.h"

namespace {

using namespace nos;

thread_local std::string g_text;

template <class F>
const char* guarded(const F& f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    g_text = e.what();
    return g_text.c_str();
  }
}

std::vector<Program> parse(int count, const uint8_t* const* bytes, const size_t* sizes) {
  std::vector<Program> out;
  for (int k = 0; k < count; ++k) out.push_back(Program::parse({bytes[k], sizes[k]}));
  return out;
}

}  // namespace

extern "C" {

// One step's arguments. Lists are params, grads, states; element [list * tensors + i] is list's tensor i.
struct Step {
  int num_programs, lists, tensors, rows;
  const uint8_t* const* program_bytes;
  const size_t* program_sizes;
  void* const* data;
  const int64_t* numel;    // per tensor, of all slices
  const uint8_t* dtype;    // nos::DType, per list and tensor
  const uint32_t* row_of;  // per tensor; null in a population
  const double* hypers;    // rows x 64
  const uint64_t* seeds;   // per row
  double total_steps, factor;
  int64_t chunk;
  uint64_t shared_limit;
  uint32_t population, step, first_index, registers;
};

const char* nos_host_step(const Step* s) {
  return guarded([&] {
    const std::vector<Program> programs = parse(s->num_programs, s->program_bytes, s->program_sizes);
    std::vector<const Program*> pointers;
    for (const Program& p : programs) pointers.push_back(&p);
    std::vector<std::array<int64_t, 2>> shapes, strides;
    for (int i = 0; i < s->tensors; ++i) {
      const int64_t slices = s->population ? s->population : 1;
      shapes.push_back({slices, s->numel[i] / slices});
      strides.push_back({s->numel[i] / slices, 1});
    }
    std::vector<TensorList> lists;
    for (int l = 0; l < s->lists; ++l) {
      lists.push_back({"list" + std::to_string(l), {}});
      for (int i = 0; i < s->tensors; ++i) {
        TensorRef t;
        const auto at = static_cast<size_t>(l * s->tensors + i);
        t.data = s->data[at];
        t.shape = shapes[static_cast<size_t>(i)].data();
        t.strides = strides[static_cast<size_t>(i)].data();
        t.numel = s->numel[i];
        t.ndim = 2;
        t.dtype = static_cast<DType>(s->dtype[at]);
        lists.back().tensors.push_back(t);
      }
    }
    Plan plan = make_plan(lists, s->first_index, s->population);
    if (!s->population)
      for (PlannedTensor& t : plan.tensors) t.row = s->row_of[t.index - s->first_index];
    const cuda::Job job = cuda::make_job(plan, pointers, 4, s->chunk, s->registers);
    std::vector<std::vector<double>> slots;
    std::vector<const double*> rows;
    std::vector<size_t> sizes;
    for (int r = 0; r < s->rows; ++r) {
      const Program& p = *pointers[s->population ? static_cast<size_t>(r) : 0];
      slots.emplace_back(static_cast<size_t>(p.num_scalars()));
      p.eval_scalars(s->step, s->total_steps, {s->hypers + 64 * r, p.hypers().size()}, slots.back());
      rows.push_back(slots.back().data());
      sizes.push_back(slots.back().size());
    }
    cuda::host_run(job, {rows.data(), sizes.data(), rows.size(), s->seeds, s->step, s->factor}, s->shared_limit);
  });
}

// The listing of a program's device code; text that starts with "error: " on failure.
const char* nos_host_listing(const uint8_t* bytes, size_t size, uint32_t registers, uint32_t* overflow) {
  const char* error = guarded([&] {
    const auto code = cuda::lower(Program::parse({bytes, size}), registers);
    *overflow = code.overflow;
    g_text = cuda::listing(code);
  });
  if (error) g_text = "error: " + std::string(error);
  return g_text.c_str();
}

}  // extern "C"
