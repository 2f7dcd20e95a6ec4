// Owns the CUDA back-end: its jobs, whose records lie on a device, and their launches on the stream of the call.
#include "../../backend.h"

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "../common/batches.h"
#include "../common/cursor.h"
#include "../common/memory.h"
#include "../common/step_block.h"
#include "../interpreter/program_table.h"
#include "../interpreter/shape.h"
#include "../jit/jit.h"
#include "captured_step.h"
#include "kernels.h"
#include "launch.h"
#include "reducing_job.h"
#include "ring.h"
#include "runtime.h"

namespace nos {
namespace cuda {
namespace {

// A compiled kernel has blocks of one size. On smaller chunks most of its threads would have nothing to do.
constexpr int64_t kLeastCompiledChunk = 1024;  // elements

std::array<DType, kMaxSlots> layout_of(uint32_t dtypes) {
  std::array<DType, kMaxSlots> out;
  for (int s = 0; s < kMaxSlots; ++s) out[static_cast<size_t>(s)] = static_cast<DType>(any_dtype_of(dtypes, s));
  return out;
}

// A plan whose records are on a device. Each batch of its tensors is served by one launch.
class DeviceJob final : public Job {
 public:
  DeviceJob(Plan made, std::span<const Program* const> programs, const Place& place)
      : Job(std::move(made)),
        device_(place.device),
        batches_(batches_of(plan, blocks_at_once(device_))),
        table_(program_table(programs)) {
    if (batches_.empty()) return;
    Cursor cursor;
    programs_at_ = cursor.array<ProgramRec>(table_.programs.size());
    code_at_ = cursor.array<Ins>(table_.code.size());
    for (const Batch& batch : batches_) {
      const Shape shape = block_shape(batch.kind, table_.longest, table_.overflow, batch.longest_chunk,
                                      properties(device_).shared_limit);
      placed_.push_back({0, cursor.array<ChunkRec>(batch.chunks.size()), shape});
    }
    fixed_ = take_twin(device_, cursor.bytes());
    unsigned char* host = fixed_->host();
    put(host, programs_at_, table_.programs);
    put(host, code_at_, table_.code);
    for (size_t i = 0; i < placed_.size(); ++i) put(host, placed_[i].chunks, batches_[i].chunks);
    fixed_->use_on(stream_of(place));
    fixed_->upload(0, cursor.bytes(), stream_of(place));
    upload_tensors(stream_of(place));
  }

  bool serves(std::span<const Program* const> programs) const override {
    return std::ranges::equal(table_.lowered, programs,
                              [](const auto& mine, const Program* program) { return mine == program->kept.cuda_code; });
  }
  void move(const Place& place) override {
    if (batches_.empty()) return;
    const OnDevice on(device_);
    move_tensors(batches_, plan);
    upload_tensors(stream_of(place));
  }
  int64_t busy() const override { return 0; }  // launching takes no time worth counting
  void get_ready(const StepArgs&) override {}
  void run(const StepArgs& args, std::span<const Program* const> programs, const Place& place) override {
    if (batches_.empty()) return;
    const OnDevice on(device_);
    fixed_->use_on(stream_of(place));
    tensors_->use_on(stream_of(place));
    for (size_t i = 0; i < batches_.size(); ++i) run_batch(batches_[i], placed_[i], args, programs, stream_of(place));
  }

 private:
  // Where the records of a batch lie, as byte offsets into tensors_ and fixed_, and how many blocks work on it.
  struct Placed {
    size_t tensors, chunks;
    Shape shape;
  };

  void upload_tensors(cudaStream_t stream) {
    Cursor cursor;
    for (size_t i = 0; i < placed_.size(); ++i)
      placed_[i].tensors = cursor.array<TensorRec>(batches_[i].tensors.size());
    tensors_ = &tensors_ring_.next(device_, cursor.bytes());
    for (size_t i = 0; i < placed_.size(); ++i) put(tensors_->host(), placed_[i].tensors, batches_[i].tensors);
    tensors_->use_on(stream);
    tensors_->upload(0, cursor.bytes(), stream);
  }

  void run_batch(const Batch& batch, const Placed& at, const StepArgs& args, std::span<const Program* const> programs,
                 cudaStream_t stream) {
    Launch launch;
    launch.tensors = reinterpret_cast<const TensorRec*>(tensors_->device() + at.tensors);
    launch.chunks = reinterpret_cast<const ChunkRec*>(fixed_->device() + at.chunks);
    launch.programs = reinterpret_cast<const ProgramRec*>(fixed_->device() + programs_at_);
    launch.code = reinterpret_cast<const Ins*>(fixed_->device() + code_at_);
    launch.step_block = nullptr;
    launch.rows = static_cast<uint32_t>(args.num_rows);
    launch.chunk_elements = batch.chunk_elements;
    launch.code_room = static_cast<uint32_t>(at.shape.code_room);
    launch.unused = 0;
    launch.sums = nullptr;
    const size_t bytes = step_block_bytes(batch.kind, args);
    if (bytes <= kInlineBytes) {
      write_step_block(batch.kind, args, launch.inline_block);
    } else {
      Twin& block = step_blocks_.next(device_, bytes);
      write_step_block(batch.kind, args, block.host());
      block.use_on(stream);
      block.upload(0, bytes, stream);
      launch.step_block = block.device();
    }
    if (const jit::Kernel* k = compiled(batch, args, programs))
      return launch_kernel(k->function, batch.chunks.size(), k->threads, 0, launch, stream);
    const void* kernel = interpreter_of(batch.kind);
    if (at.shape.shared > kUnaskedShared) allow_shared(kernel, device_);
    launch_kernel(kernel, batch.chunks.size(), at.shape.threads, at.shape.shared, launch, stream);
  }

  // The kernel that NVRTC has compiled for the rule, if there is one and it can serve the batch. Such a kernel serves
  // one program with one choice of dtypes, and rounds to nearest.
  static const jit::Kernel* compiled(const Batch& batch, const StepArgs& args,
                                     std::span<const Program* const> programs) {
    const jit::Mode mode = jit::mode();
    if (mode == jit::Mode::never || programs.size() != 1 || !batch.one_layout || args.rounding != Rounding::nearest)
      return nullptr;
    if (batch.longest_chunk < kLeastCompiledChunk && mode != jit::Mode::always) return nullptr;
    return jit::request(*programs[0], layout_of(batch.tensors[0].dtypes), mode);
  }

  const int device_;
  std::vector<Batch> batches_;
  ProgramTable table_;
  size_t programs_at_ = 0, code_at_ = 0;  // byte offsets into fixed_
  std::vector<Placed> placed_;            // of each batch
  std::shared_ptr<Twin> fixed_;           // programs, code, chunks
  Ring tensors_ring_, step_blocks_;
  Twin* tensors_ = nullptr;  // the ring's latest
};

class Cuda final : public Backend {
 public:
  bool has_streams() const override { return true; }
  void check(const Place& place) const override {
    const OnDevice on(place.device);
    if (is_capturing(stream_of(place)))
      throw std::runtime_error(
          "this call is inside a CUDA graph capture, which would freeze lr, the step and the addresses of its tables; "
          "make an optimizer with capturable=True, or a nos_ext.CapturedStep before the capture, and call that inside "
          "it");
  }
  std::shared_ptr<Job> prepare(Plan plan, std::span<const Program* const> programs, const Place& place) const override {
    const OnDevice on(place.device);
    if (std::ranges::any_of(programs, &Program::has_tensor_scalars))
      return prepare_reducing(std::move(plan), programs, place);
    return std::make_shared<DeviceJob>(std::move(plan), programs, place);
  }
  std::unique_ptr<nos::CapturedStep> capture(const Plan& plan, std::span<const Program* const> programs,
                                             std::span<const uint32_t> row_program, Capacity capacity, bool in_capture,
                                             const Place& place) const override {
    const OnDevice on(place.device);
    return std::make_unique<CapturedStep>(plan, programs, row_program, capacity, in_capture, place);
  }
};

}  // namespace
}  // namespace cuda

const Backend& cuda_backend() {
  static const cuda::Cuda backend;
  return backend;
}

}  // namespace nos
