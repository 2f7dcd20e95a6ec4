#include "plan_cache.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "../plan/device.h"
#include "../program/passes.h"

namespace nos::bind {
namespace {

// A cache serves lists that take turns: the tensors of a few networks, or the parameters of one network, each in a call
// of its own. When there are more tensors than this, or more programs (a job of a population keeps their machine code),
// the half that was not used for longest is dropped. The limit amounts to some ten megabytes.
constexpr size_t kMostTensors = size_t{1} << 17, kMostPrograms = 4096;

// At most so many entries have the same first parameter: as many as can be searched in the time in which a job is made.
constexpr std::ptrdiff_t kMostOfOneKey = 8;

// With less work than this (Job::busy, in ns) it costs more to release and take back the GIL than it gives.
constexpr int64_t kReleaseGil = 6'000;
// The same per tensor, since then the call has to own the memory of every tensor. It is thirty times what that costs.
constexpr int64_t kOwnTensor = 4'000;

}  // namespace

bool ReadyJob::is_long() const {
  return entry_->job->busy() > kReleaseGil + kOwnTensor * static_cast<int64_t>(entry_->snapshot.tensors.size());
}

void ReadyJob::check_takes_rows_apart() const {
  if (!entry_->backend->takes_rows_apart())
    throw TensorError(
        "the rule has reductions over all parameters, but parameters that have a gradient have taken different "
        "numbers of steps, or differ in maximize, seed, total_steps or stochastic_rounding; here they "
        "have to agree: give all of them a gradient in every step, and the same flags");
}

void ReadyJob::run(const StepArgs& args, TensorLists& lists) const {
  Job& job = *entry_->job;
  if (!is_long()) return job.run(args, programs_, place_);
  lists.own_memory(entry_->snapshot);
  job.get_ready(args);  // now, as it takes a lock, which a child that is forked meanwhile would find locked for ever
  const pybind11::gil_scoped_release release;
  job.run(args, programs_, place_);
}

PlanCache::Fit PlanCache::fit(const Entry& entry, TensorLists& tensors, std::span<const Program* const> programs,
                              const CallShape& shape) {
  if (entry.tensor_index != shape.tensor_index || entry.population != shape.population ||
      !std::ranges::equal(entry.row_of, shape.row_of) || !std::ranges::equal(entry.program_of, shape.program_of))
    return Fit::no;
  const Likeness likeness = tensors.read_like(entry.snapshot);
  if (likeness == Likeness::different) return Fit::no;
  if (!entry.job->serves(programs)) return Fit::other_programs;
  return likeness == Likeness::same ? Fit::yes : Fit::moved;
}

Place PlanCache::place_of(const Entry& entry, const TensorLists& tensors) {
  const Place place = tensors.place(*entry.backend, entry.device);
  entry.backend->check(place);
  return place;
}

// Returns false where the job has to be made anew.
bool PlanCache::move(Entry& entry, const TensorLists& tensors, const Place& place) {
  if (entry.users > 0 || !move_gradients(entry.job->plan, tensors.lists()[bytecode::kG], entry.tensor_index))
    return false;
  try {
    entry.job->move(place);
  } catch (...) {
    forget(&entry);  // its plan and its snapshot no longer agree
    throw;
  }
  tensors.refresh(entry.snapshot);
  return true;
}

std::shared_ptr<PlanCache::Entry> PlanCache::make(TensorLists& tensors, std::span<const Program* const> programs,
                                                  const CallShape& shape) {
  auto made = std::make_shared<Entry>();
  made->snapshot = tensors.read_anew();
  made->device = device_of_call(tensors.lists());
  made->backend = &backend_of(made->device.kind);
  const Place place = place_of(*made, tensors);
  std::vector<TensorStates> states_of;
  for (const uint32_t p : shape.program_of)
    states_of.push_back({programs[p]->num_states(), number_slots(programs.subspan(p, 1))});
  Plan plan = make_plan(tensors.lists(), shape.tensor_index, shape.population,
                        shape.program_of.empty() ? number_slots(programs) : 0, states_of, tensors.num_scales());
  if (!shape.program_of.empty())
    for (PlannedTensor& t : plan.tensors) t.program = shape.program_of[t.index - shape.tensor_index];
  if (!shape.row_of.empty())
    for (PlannedTensor& t : plan.tensors) t.row = shape.row_of[t.index - shape.tensor_index];
  made->job = made->backend->prepare(std::move(plan), programs, place);
  made->programs = programs.size();
  made->row_of.assign(shape.row_of.begin(), shape.row_of.end());
  made->program_of.assign(shape.program_of.begin(), shape.program_of.end());
  made->tensor_index = shape.tensor_index;
  made->population = shape.population;
  return made;
}

// Wherever tensors are read, Python code may run, and with it other calls that use this cache. So entries are owned
// here while they are looked at.
ReadyJob PlanCache::get(TensorLists& tensors, std::span<const Program* const> programs, const CallShape& shape) {
  std::shared_ptr<Entry> replaced;
  const auto place_in = [&](const std::shared_ptr<Entry>& entry) -> std::optional<Place> {
    const Fit found = fit(*entry, tensors, programs, shape);
    if (found == Fit::no) return {};
    if (found != Fit::other_programs) {
      const Place place = place_of(*entry, tensors);
      if (found == Fit::yes || move(*entry, tensors, place)) {
        entry->last_use = ++uses_;
        return place;
      }
    }
    replaced = entry;
    return {};
  };
  std::shared_ptr<Entry> entry = last_;
  if (entry)
    if (const auto place = place_in(entry)) return {std::move(entry), programs, *place};
  const void* key = tensors.first_address();
  std::vector<std::shared_ptr<Entry>> candidates;
  for (auto [it, end] = entries_.equal_range(key); it != end; ++it)
    if (it->second != entry) candidates.push_back(it->second);
  for (std::shared_ptr<Entry>& candidate : candidates)
    if (const auto place = place_in(candidate)) {
      last_ = candidate;
      return {std::move(candidate), programs, *place};
    }
  entry = make(tensors, programs, shape);
  const Place place = place_of(*entry, tensors);
  if (replaced) forget(replaced.get());
  keep(entry, key);
  return {std::move(entry), programs, place};
}

void PlanCache::keep(const std::shared_ptr<Entry>& entry, const void* key) {
  const auto [first, end] = entries_.equal_range(key);
  if (std::distance(first, end) >= kMostOfOneKey) {
    const auto use = [](const auto& kept) { return kept.second->last_use; };
    const std::shared_ptr<Entry> oldest = std::ranges::min_element(first, end, {}, use)->second;
    forget(oldest.get());
  }
  entry->key = key;
  entry->last_use = ++uses_;
  entries_.emplace(key, entry);
  tensors_ += entry->snapshot.tensors.size();
  programs_ += entry->programs;
  last_ = entry;
  while (entries_.size() > 1 && (tensors_ > kMostTensors || programs_ > kMostPrograms)) {
    std::vector<std::shared_ptr<Entry>> all;
    for (const auto& [_, other] : entries_) all.push_back(other);
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::ranges::nth_element(all, middle, {}, &Entry::last_use);
    for (auto it = all.begin(); it != middle; ++it) forget(it->get());
  }
}

void PlanCache::forget(const Entry* entry) {
  if (last_.get() == entry) last_.reset();
  for (auto [it, end] = entries_.equal_range(entry->key); it != end; ++it)
    if (it->second.get() == entry) {
      tensors_ -= entry->snapshot.tensors.size();
      programs_ -= entry->programs;
      entries_.erase(it);
      return;
    }
}

}  // namespace nos::bind
