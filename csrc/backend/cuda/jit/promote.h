// Owns which programs get a kernel of their own, and when. It is host code, and its result is machine code, which
// jit.cc loads.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "jit.h"

namespace nos::cuda::jit {

constexpr const char* name_of(Mode m) { return m == Mode::automatic ? "auto" : m == Mode::always ? "always" : "never"; }
// Throws std::invalid_argument naming `what`.
Mode read_mode(std::string_view what, std::string_view text);

// In the mode automatic, a program is compiled after so many calls with the same dtypes. A compilation takes about as
// long as a thousand launches save on small models, so short trainings, as those of a search, never pay for one.
inline constexpr uint32_t kPromoteAfter = 1000;
void set_promote_after(uint32_t calls);

// The machine code of one text for one architecture. It is made once per process and kept until the process ends.
class Build {
 public:
  Build(std::string text, int arch) : text_(std::move(text)), arch_(arch) {}

  enum class State { idle, queued, ready, failed };
  State state() const { return state_.load(std::memory_order_acquire); }
  void run();                                          // compiles unless that has been done; on any thread
  void queue();                                        // has the background thread do it
  const std::string& cubin() const { return cubin_; }  // once ready
  const std::string& why() const { return why_; }      // once failed
  bool from_disk() const { return from_disk_; }
  int arch() const { return arch_; }

  std::once_flag loading;  // jit.cc's
  Kernel kernel{};
  std::string load_error;

 private:
  const std::string text_;
  const int arch_;
  std::atomic<State> state_{State::idle};
  std::mutex mutex_;
  std::string cubin_, why_;
  bool from_disk_ = false;
};

// Ends the background thread after the compilation that it is busy with; from then on nothing is queued. Call this
// before the process unloads its libraries, as NVRTC must not lose its data while it compiles.
void finish_builds();

// The build whose kernel is to run in the place of the interpreter, or null; see jit::request.
Build* promoted(const Program& program, const std::array<DType, kMaxSlots>& dtypes, int arch, Mode mode);

}  // namespace nos::cuda::jit
