#include "engine.h"

#include <cstring>
#include <limits>

namespace nos::cuda {
namespace {

// Compiled kernels have blocks of one size, most of which would have nothing to do on smaller chunks.
constexpr int64_t kLeastCompiledChunk = 1024;  // elements

// Blocks that run at once when every multiprocessor is full.
int blocks_at_once(int device) { return properties(device).multiprocessors * kBlocksPerSm; }

// Lets a kernel have more than the 48 KB of dynamic shared memory that it gets unasked.
void allow_shared(const void* kernel, int device) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(properties(device).shared_limit)),
        "asking for shared memory");
}

void launch_kernel(const void* kernel, size_t blocks, int threads, size_t shared, Launch& launch, cudaStream_t stream) {
  if (blocks > static_cast<size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("the tensors of one call need more than 2^31 - 1 blocks; apply the rule in pieces");
  void* arguments[] = {&launch};
  check(cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), arguments,
                         shared, stream),
        "launching the update");
}

template <class T>
size_t append(size_t& bytes, const std::vector<T>& list) {
  const size_t at = bytes;
  bytes = (bytes + list.size() * sizeof(T) + 15) / 16 * 16;
  return at;
}

template <class T>
void put(unsigned char* memory, size_t at, const std::vector<T>& list) {
  if (!list.empty()) std::memcpy(memory + at, list.data(), list.size() * sizeof(T));
}

// Memory of steps that are gone, by device. A graph may still be replaying them: that leaves no trace on any stream
// that is known here, and waiting for the device would end a capture that happens to be under way.
std::vector<std::pair<int, std::shared_ptr<Twin>>>& replayed() {
  static auto& list = *new std::vector<std::pair<int, std::shared_ptr<Twin>>>();  // CUDA may be gone at exit
  return list;
}

std::array<DType, kMaxSlots> layout_of(uint32_t dtypes) {
  std::array<DType, kMaxSlots> out;
  for (int s = 0; s < kMaxSlots; ++s) out[static_cast<size_t>(s)] = static_cast<DType>(dtypes >> (2 * s) & 3u);
  return out;
}

}  // namespace

Ready::Ready(const Plan& plan, std::span<const Program* const> programs, int device, cudaStream_t stream)
    : device_(device), job_(make_job(plan, programs, blocks_at_once(device))) {
  if (job_.parts.empty()) return;
  size_t bytes = 0;
  programs_at_ = append(bytes, job_.programs);
  code_at_ = append(bytes, job_.code);
  for (const Part& part : job_.parts) {
    const Shape shape =
        block_shape(part.kind, job_.longest, job_.overflow, part.longest_chunk, properties(device).shared_limit);
    parts_.push_back({0, append(bytes, part.chunks), shape});
  }
  tables_ = take_twin(device, bytes);
  unsigned char* host = tables_->host();
  put(host, programs_at_, job_.programs);
  put(host, code_at_, job_.code);
  for (size_t i = 0; i < parts_.size(); ++i) put(host, parts_[i].chunks, job_.parts[i].chunks);
  tables_->use_on(stream);
  tables_->upload(0, bytes, stream);
  upload_records(stream);
}

Twin& Ready::Ring::next(int device, size_t bytes) {
  if (twins_.size() < kTurns) {
    twins_.push_back(nullptr);
    turn_ = twins_.size() - 1;
  }
  std::shared_ptr<Twin>& twin = twins_[turn_++ % kTurns];
  if (!twin || twin->bytes() < bytes) twin = take_twin(device, bytes);
  return *twin;
}

void Ready::upload_records(cudaStream_t stream) {
  size_t bytes = 0;
  for (size_t i = 0; i < parts_.size(); ++i) parts_[i].tensors = append(bytes, job_.parts[i].tensors);
  records_ = &records_ring_.next(device_, bytes);
  for (size_t i = 0; i < parts_.size(); ++i) put(records_->host(), parts_[i].tensors, job_.parts[i].tensors);
  records_->use_on(stream);
  records_->upload(0, bytes, stream);
}

void Ready::move(const Plan& plan, cudaStream_t stream) {
  if (parts_.empty()) return;
  move_tensors(job_, plan);
  upload_records(stream);
}

void Ready::run(const StepArgs& args, std::span<const Program* const> programs, cudaStream_t stream) {
  if (parts_.empty()) return;
  tables_->use_on(stream);
  records_->use_on(stream);
  const unsigned char* tables = tables_->device();
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = job_.parts[i];
    const Placed& at = parts_[i];
    Launch launch;
    launch.tensors = reinterpret_cast<const TensorRec*>(records_->device() + at.tensors);
    launch.chunks = reinterpret_cast<const ChunkRec*>(tables + at.chunks);
    launch.programs = reinterpret_cast<const ProgramRec*>(tables + programs_at_);
    launch.code = reinterpret_cast<const Ins*>(tables + code_at_);
    launch.step_block = nullptr;
    launch.rows = static_cast<uint32_t>(args.num_rows);
    launch.chunk_elements = part.chunk_elements;
    launch.code_room = static_cast<uint32_t>(at.shape.code_room);
    launch.unused = 0;
    const size_t bytes = step_block_bytes(part.kind, args);
    if (bytes <= kInlineBytes) {
      write_step_block(part.kind, args, launch.inline_block);
    } else {
      Twin& block = step_blocks_.next(device_, bytes);
      write_step_block(part.kind, args, block.host());
      block.use_on(stream);
      block.upload(0, bytes, stream);
      launch.step_block = block.device();
    }
    // compiled kernels round to nearest
    if (programs.size() == 1 && part.one_layout && !args.stochastic_rounding &&
        (part.longest_chunk >= kLeastCompiledChunk || jit::mode() == jit::Mode::always)) {
      if (const jit::Kernel* k = jit::request(*programs[0], layout_of(part.tensors[0].dtypes), jit::mode())) {
        launch_kernel(k->function, part.chunks.size(), k->threads, 0, launch, stream);
        continue;
      }
    }
    const void* kernel = interpreter_of(part.kind);
    if (at.shape.shared > 40 * 1024) allow_shared(kernel, device_);
    launch_kernel(kernel, part.chunks.size(), at.shape.threads, at.shape.shared, launch, stream);
  }
}

CapturedStep::CapturedStep(const Plan& plan, std::span<const Program* const> programs,
                           std::span<const uint32_t> row_program, Capacity capacity, int device, cudaStream_t stream)
    : device_(device), image_(plan, programs, row_program, capacity, blocks_at_once(device)) {
  for (const Part& part : image_.job().parts) {
    shapes_.push_back(block_shape(part.kind, image_.capacity().instructions, image_.capacity().temporaries,
                                  part.longest_chunk, properties(device).shared_limit));
    allow_shared(interpreter_of(part.kind), device);  // not possible in a capture
  }
  cudaFuncAttributes unused;  // has the kernel loaded, which may not be possible in a capture
  check(cudaFuncGetAttributes(&unused, prologue_kernel()), "loading the kernel of a captured step");
  memory_ = take_twin(device, image_.bytes());
  image_.attach(memory_->host(), memory_->device());
  memory_->use_on(stream);
  memory_->upload(0, image_.initialised(), stream);
}

CapturedStep::~CapturedStep() {
  if (was_captured_) replayed().emplace_back(device_, std::move(memory_));
}

void CapturedStep::settle() {
  while (!replayed().empty()) {
    const int device = replayed().back().first;
    const OnDevice on(device);
    check(cudaDeviceSynchronize(), "waiting for replays of a captured step that is gone");
    std::erase_if(replayed(), [device](const auto& memory) { return memory.first == device; });
  }
}

void CapturedStep::begin_edit() { (void)memory_->host(); }

void CapturedStep::upload(std::span<const CapturedImage::Range> changed, cudaStream_t stream) {
  memory_->use_on(stream);
  for (const auto& range : changed) memory_->upload(range.first, range.bytes, stream);
}

void CapturedStep::launch(cudaStream_t stream) {
  if (is_capturing(stream))
    was_captured_ = true;
  else
    memory_->use_on(stream);
  Prologue prologue = image_.prologue();
  void* arguments[] = {&prologue};
  check(cudaLaunchKernel(prologue_kernel(), dim3(prologue.num_rows), dim3(kPrologueThreads), arguments,
                         prologue_shared(prologue), stream),
        "launching the scalars of a captured step");
  for (size_t i = 0; i < shapes_.size(); ++i) {
    const Part& part = image_.job().parts[i];
    Launch launch = image_.launch(i, shapes_[i].code_room);
    launch_kernel(interpreter_of(part.kind), part.chunks.size(), shapes_[i].threads, shapes_[i].shared, launch, stream);
  }
  if (!is_capturing(stream)) (void)memory_->note();  // for an edit inside a later capture of this stream
}

uint32_t CapturedStep::steps_done(cudaStream_t stream) {
  uint32_t step = 0;
  check(
      cudaMemcpyAsync(&step, memory_->device() + CapturedImage::step_at(), sizeof step, cudaMemcpyDeviceToHost, stream),
      "reading the step");
  check(cudaStreamSynchronize(stream), "waiting for the step");
  return step;
}

}  // namespace nos::cuda
