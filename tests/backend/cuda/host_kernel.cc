// The CUDA interpreter on the host, for tests: a C interface over plan, tables and the kernel body. Loaded by host.py.
#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <optional>
#include <string>

#include "../../../csrc/backend/cuda/interpreter/fold.h"
#include "../../../csrc/program/passes.h"
#include "host_run.h"
#include "listing.h"

namespace {

using namespace nos;

constexpr int kBlocksAtOnce = 4;  // of a device that would be very small
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

// One step's arguments. Lists are params, grads, states; element [list * tensors + i] is list's tensor i.
struct Step {
  int num_programs, lists, tensors, rows;
  const uint8_t* const* program_bytes;
  const size_t* program_sizes;
  void* const* data;         // null: a gradient that is missing
  void* const* first_grads;  // per tensor, those of the step before, which lie elsewhere; null: there is no step before
  const int64_t* numel;      // per tensor, of all slices
  const uint8_t* dtype;      // nos::DType, per list and tensor
  void* const* scales;       // per state and tensor, null where it is not quantized; null: no state is
  const uint32_t* row_of;    // per tensor; not read in a population
  const uint32_t* program_of;  // per tensor; null: all have program 0, or there is a population
  const double* hypers;        // rows x 64
  const uint64_t* seeds;       // per row
  double total_steps, factor;
  int64_t chunk;
  uint64_t shared_limit;
  cuda::CompiledKernel compiled;  // null: the interpreter
  uint32_t population, step, first_index, registers, rounding;
};

// The programs and the plan of a call.
struct Call {
  std::vector<Program> programs;
  std::vector<const Program*> pointers;
  std::vector<TensorList> lists;
  Plan plan;

  bool has_tensor_scalars() const { return std::ranges::any_of(pointers, &Program::has_tensor_scalars); }
  cuda::ReducingImage passes(const Step* s) const {
    const int64_t chunk = (s->chunk + cuda::kFoldUnit - 1) / cuda::kFoldUnit * cuda::kFoldUnit;  // whole units
    return {plan, pointers, kBlocksAtOnce, s->shared_limit, chunk, s->registers};
  }
  static int64_t slices_of(const Step* s) { return s->population ? s->population : 1; }
  const Program& program_of_row(const Step* s, int row) const {
    if (s->population) return programs[static_cast<size_t>(row)];
    const uint32_t* found = std::find(s->row_of, s->row_of + s->tensors, static_cast<uint32_t>(row));
    return s->program_of && found != s->row_of + s->tensors ? programs[s->program_of[found - s->row_of]] : programs[0];
  }
  uint32_t number_slots_of(const Step* s, int tensor) const {
    const std::span<const Program* const> all(pointers);
    return number_slots(s->program_of ? all.subspan(s->program_of[tensor], 1) : all);
  }

  explicit Call(const Step* s) : programs(parse(s->num_programs, s->program_bytes, s->program_sizes)) {
    for (const Program& p : programs) pointers.push_back(&p);
    for (int i = 0; i < s->tensors; ++i) {
      const int64_t slices = slices_of(s);
      shapes.push_back({slices, s->numel[i] / slices});
      strides.push_back({s->numel[i] / slices, 1});
    }
    for (int l = 0; l < s->lists; ++l) {
      lists.push_back({"list" + std::to_string(l), {}});
      for (int i = 0; i < s->tensors; ++i) {
        TensorRef t;
        const auto at = static_cast<size_t>(l * s->tensors + i);
        t.data = l == bytecode::kG && s->first_grads ? s->first_grads[i] : s->data[at];
        t.present = t.data != nullptr;
        t.shape = shapes[static_cast<size_t>(i)].data();
        t.strides = strides[static_cast<size_t>(i)].data();
        t.numel = s->numel[i];
        t.ndim = 2;
        if (l > bytecode::kG && number_slots_of(s, i) >> l & 1) {  // one number for each slice
          static constexpr int64_t kOne = 1;
          t.strides = &kOne;
          t.numel = slices_of(s);
          t.ndim = s->population ? 1 : 0;
        }
        t.dtype = static_cast<DType>(s->dtype[at]);
        lists.back().tensors.push_back(t);
      }
    }
    const int states = s->scales ? s->lists - bytecode::kFirstState : 0;
    for (int l = 0; l < states; ++l) {
      lists.push_back({"scales" + std::to_string(l), {}});
      for (int i = 0; i < s->tensors; ++i) {
        static constexpr int64_t kOne = 1;
        TensorRef t;
        t.data = s->scales[l * s->tensors + i];
        t.present = t.data != nullptr;
        counts.push_back(scale_count(s->numel[i]));
        t.shape = &counts.back();
        t.strides = &kOne;
        t.numel = counts.back();
        t.ndim = 1;
        lists.back().tensors.push_back(t);
      }
    }
    std::vector<TensorStates> states_of;
    for (int i = 0; s->program_of && i < s->tensors; ++i)
      states_of.push_back({programs[s->program_of[i]].num_states(), number_slots_of(s, i)});
    plan = make_plan(lists, s->first_index, s->population, states_of.empty() ? number_slots(pointers) : 0, states_of,
                     static_cast<size_t>(states));
    for (PlannedTensor& t : plan.tensors) {
      if (!s->population) t.row = s->row_of[t.index - s->first_index];
      if (s->program_of) t.program = s->program_of[t.index - s->first_index];
    }
  }

  void move(const Step* s) {
    for (int i = 0; i < s->tensors; ++i)
      lists[bytecode::kG].tensors[static_cast<size_t>(i)].data = s->data[s->tensors + i];
    if (!move_gradients(plan, lists[bytecode::kG], s->first_index))
      throw TensorError("the gradients may not move there");
  }

 private:
  std::vector<std::array<int64_t, 2>> shapes, strides;
  std::deque<int64_t> counts;
};

}  // namespace

extern "C" {

// One step, or two: see first_grads. blocks: how many have run in the last one.
const char* nos_host_step(const Step* s, uint64_t* blocks) {
  return guarded([&] {
    Call call(s);
    std::vector<cuda::Batch> batches;
    cuda::ProgramTable table;
    std::optional<cuda::ReducingImage> reducing;
    if (call.has_tensor_scalars()) {
      reducing.emplace(call.passes(s));
      for (const auto& pass : reducing->passes())
        for (const auto& sweep : pass.sweeps) *blocks += sweep.chunks.size();
    } else {
      batches = cuda::batches_of(call.plan, kBlocksAtOnce, s->chunk);
      table = cuda::program_table(call.pointers, s->registers);
      for (const cuda::Batch& batch : batches) *blocks += batch.chunks.size();
    }
    const auto run = [&](uint32_t step) {
      std::vector<std::vector<double>> slots;
      std::vector<const double*> rows;
      std::vector<size_t> sizes;
      for (int r = 0; r < s->rows; ++r) {
        const Program& p = call.program_of_row(s, r);
        slots.emplace_back(static_cast<size_t>(p.num_scalars()));
        p.eval_scalars(step, s->total_steps, {s->hypers + 64 * r, p.hypers().size()}, slots.back());
        rows.push_back(slots.back().data());
        sizes.push_back(slots.back().size());
      }
      const StepArgs args{
          rows.data(), sizes.data(), rows.size(), s->seeds, step, s->factor, static_cast<Rounding>(s->rounding)};
      if (reducing)
        cuda::host_run(*reducing, args);
      else
        cuda::host_run(batches, table, args, s->shared_limit, s->compiled);
    };
    if (s->first_grads) {
      run(s->step - 1);
      call.move(s);
      if (reducing)
        reducing->move(call.plan);
      else
        cuda::move_tensors(batches, call.plan);
    }
    run(s->step);
  });
}

// A captured step: `before` steps of the call's programs; then, if there is one, `later` takes the place of program
// `number` with the given hyperparameters, step and seed start anew, and `after` more steps run. The device's copy of
// the image is memory of its own, so that a change which is not reported is not seen. threads, backwards: see
// PrologueOrder.
const char* nos_host_captured(const Step* s, int before, const uint8_t* later, size_t later_size, uint32_t number,
                              const double* later_hypers, int after, uint32_t temporaries, uint32_t scalars,
                              uint32_t threads, bool backwards) {
  return guarded([&] {
    const Call call(s);
    std::vector<uint32_t> row_program;
    for (int r = 0; r < s->rows; ++r) row_program.push_back(s->population ? static_cast<uint32_t>(r) : 0);
    cuda::CapturedImage image(call.plan, call.pointers, row_program, {512, scalars, temporaries}, kBlocksAtOnce,
                              s->chunk);
    std::vector<std::max_align_t> host(image.bytes() / sizeof(std::max_align_t) + 1), device(host.size());
    auto* from = reinterpret_cast<unsigned char*>(host.data());
    auto* to = reinterpret_cast<unsigned char*>(device.data());
    const auto copy = [&](const std::vector<cuda::CapturedImage::Range>& ranges) {
      for (const auto& r : ranges) std::memcpy(to + r.first, from + r.first, r.bytes);
    };
    image.attach(from, to);
    copy({{0, image.initialised()}, image.set_head(s->step - 1, s->factor)});
    for (int r = 0; r < s->rows; ++r) {
      const size_t hypers = call.pointers[s->population ? static_cast<size_t>(r) : 0]->hypers().size();
      copy({image.set_row(static_cast<uint32_t>(r), s->seeds[r], s->total_steps, {s->hypers + 64 * r, hypers})});
    }
    std::optional<cuda::ReducingImage> passes;
    if (image.has_passes()) passes.emplace(call.passes(s));
    const auto run = [&](int steps) {
      for (int i = 0; i < steps; ++i)
        cuda::host_run(image, passes ? &*passes : nullptr, s->shared_limit, {threads, backwards});
    };
    run(before);
    if (!later) return;
    const Program next = Program::parse({later, later_size});
    copy(image.load(number, next));
    copy({image.set_head(0, s->factor)});
    for (uint32_t r = 0; r < image.rows(); ++r)
      if (row_program[r] == number)
        copy({image.set_row(r, s->seeds[r], s->total_steps, {later_hypers, next.hypers().size()})});
    run(after);
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
