// Owns the jobs of earlier calls, whatever their back-end. A job is used again while its tensors are the same; if only
// gradients have moved, it is pointed at their new addresses. Guarded by the GIL.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../backend/backend.h"
#include "tensors.h"

namespace nos::bind {

// What a job depends on besides tensors and programs.
struct CallShape {
  uint32_t tensor_index = 0;               // number of the first parameter in the key of random draws
  uint32_t population = 0;                 // slices along the leading dimension; 0 for none
  std::span<const uint32_t> row_of{};      // of each parameter: the row of its scalars; empty if all have the first
  std::span<const uint32_t> program_of{};  // of each parameter: its program; empty if all have the first, or slices do
};

class PlanCache {
  struct Entry {
    Snapshot snapshot;
    std::vector<uint32_t> row_of, program_of;
    uint32_t tensor_index, population;
    size_t programs;
    const Backend* backend;
    Device device;
    std::shared_ptr<Job> job;
    const void* key = nullptr;
    uint64_t last_use = 0;
    int users = 0;  // number of ReadyJobs; while there is one, the job is not changed
  };

 public:
  // A job for the tensors of one call. Nobody points it at other gradients while this object lives.
  class ReadyJob {
   public:
    ReadyJob(std::shared_ptr<Entry> entry, std::span<const Program* const> programs, const Place& place)
        : entry_(std::move(entry)), programs_(programs), place_(place) {
      ++entry_->users;
    }
    ReadyJob(ReadyJob&& other) noexcept = default;
    ReadyJob& operator=(ReadyJob&&) = delete;
    ~ReadyJob() {
      if (entry_) --entry_->users;
    }

    // Whether run() releases the GIL.
    bool is_long() const;
    // Throws TensorError where the back-end cannot take StepArgs::of_rows.
    void check_takes_rows_apart() const;
    // The tensors must still be like this when the job runs.
    const Snapshot& tensors() const { return entry_->snapshot; }
    // Runs the job. Where it pays, it releases the GIL and owns the tensors' memory meanwhile. Throws before the first
    // write or not at all.
    void run(const StepArgs& args, TensorLists& tensors) const;

   private:
    std::shared_ptr<Entry> entry_;
    std::span<const Program* const> programs_;
    Place place_;
  };

  // Reads the tensors and finds or makes their job. TensorLists::settle has been called before, and the programs live
  // until the job has run. Throws TensorError and what the back-end throws; nothing has been written by then.
  ReadyJob get(TensorLists& tensors, std::span<const Program* const> programs, const CallShape& shape);

 private:
  enum class Fit { no, other_programs, moved, yes };
  static Fit fit(const Entry& entry, TensorLists& tensors, std::span<const Program* const> programs,
                 const CallShape& shape);
  static Place place_of(const Entry& entry, const TensorLists& tensors);
  bool move(Entry& entry, const TensorLists& tensors, const Place& place);
  static std::shared_ptr<Entry> make(TensorLists& tensors, std::span<const Program* const> programs,
                                     const CallShape& shape);
  void keep(const std::shared_ptr<Entry>& entry, const void* key);
  void forget(const Entry* entry);

  std::unordered_multimap<const void*, std::shared_ptr<Entry>> entries_;  // by the address of the first parameter
  std::shared_ptr<Entry> last_;                                           // the one that was used last
  uint64_t uses_ = 0;
  size_t tensors_ = 0, programs_ = 0;  // their numbers in all entries
};

using ReadyJob = PlanCache::ReadyJob;

}  // namespace nos::bind
