#include "promote.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cache.h"
#include "nvrtc.h"
#include "source.h"

namespace nos::cuda::jit {

// Counts the calls of a program, by dtypes and architecture. Guarded by g_calls_mutex.
struct Calls {
  struct Kind {
    std::array<DType, kMaxSlots> dtypes;
    int arch;
    uint32_t calls = 0;
    Build* build = nullptr;
  };
  std::vector<Kind> list;
};

namespace {

Mode mode_at_start() {
  const char* text = std::getenv("NOS_JIT");
  return read_mode("NOS_JIT", text && *text ? text : name_of(Mode::never));
}
std::atomic<Mode>& the_mode() {
  static std::atomic<Mode> mode{mode_at_start()};
  return mode;
}
std::atomic<uint32_t> g_promote_after{kPromoteAfter};

// Everything that decides the machine code, as a key for the disk cache. The prelude is in it by its hash.
std::string cache_key(const std::string& text, int arch, const Nvrtc& nvrtc) {
  return "nos_ext rule; prelude " + std::string(kPreludeHash) + "; NVRTC " + nvrtc.version() + " " +
         Nvrtc::options(arch) + "\n" + text;
}

// The one thread that compiles what is queued. It is started when it is first needed, and never freed, nor is its
// queue.
class Worker {
 public:
  static Worker& get() {
    static Worker& worker = *new Worker;
    return worker;
  }

  void add(Build* build) {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    jobs_.push_back(build);
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
    wake_.notify_one();
  }

  void finish() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (stop_) return;
      Build* const job = jobs_.front();
      jobs_.pop_front();
      lock.unlock();
      job->run();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Build*> jobs_;
  std::thread thread_;
  bool stop_ = false;
};

Build* build_of(std::string text, int arch) {
  static std::mutex mutex;
  static auto& known = *new std::map<std::pair<int, std::string>, Build*>;
  const std::lock_guard lock(mutex);
  Build*& build = known[{arch, text}];
  if (!build) build = new Build(std::move(text), arch);
  return build;
}

std::mutex g_calls_mutex;

}  // namespace

Mode read_mode(std::string_view what, std::string_view text) {
  for (const Mode m : {Mode::automatic, Mode::always, Mode::never})
    if (text == name_of(m)) return m;
  throw std::invalid_argument(std::string(what) + " is '" + std::string(text) + "'; pass 'auto', 'always' or 'never'");
}
Mode mode() { return the_mode().load(std::memory_order_relaxed); }
void set_mode(Mode mode) { the_mode() = mode; }
void finish_builds() { Worker::get().finish(); }
void set_promote_after(uint32_t calls) { g_promote_after = calls; }

void Build::run() {
  const auto done = [this] { return state() == State::ready || state() == State::failed; };
  if (done()) return;
  const std::lock_guard lock(mutex_);
  if (done()) return;
  State result = State::failed;
  try {
    const Nvrtc& nvrtc = Nvrtc::get();
    const auto cache = DiskCache::of_user();
    const std::string key = cache_key(text_, arch_, nvrtc);
    if (auto found = cache ? cache->get(key) : std::nullopt) {
      cubin_ = std::move(*found);
      from_disk_ = true;
    } else {
      cubin_ = nvrtc.compile(std::string(kPrelude) + text_, arch_).bytes;
      if (cache) cache->put(key, cubin_);
    }
    result = State::ready;
  } catch (const std::exception& e) {
    why_ = e.what();
  }
  state_.store(result, std::memory_order_release);
}

void Build::queue() {
  State idle = State::idle;
  if (state_.compare_exchange_strong(idle, State::queued)) Worker::get().add(this);
}

Build* promoted(const Program& program, const std::array<DType, kMaxSlots>& dtypes, int arch, Mode mode) {
  if (mode == Mode::never) return nullptr;
  const auto slots = static_cast<size_t>(program.first_instr_value());
  Build* build;
  {
    const std::lock_guard lock(g_calls_mutex);
    auto& kept = program.kept.cuda_calls;
    if (!kept) kept = std::make_shared<Calls>();
    auto& list = kept->list;
    auto use = std::find_if(list.begin(), list.end(), [&](const Calls::Kind& u) {
      return u.arch == arch && std::equal(dtypes.begin(), dtypes.begin() + slots, u.dtypes.begin());
    });
    if (use == list.end()) use = list.insert(use, {dtypes, arch});
    if (!use->build) {
      if (mode == Mode::automatic && ++use->calls < g_promote_after) return nullptr;
      std::string text = source_of(program, dtypes);
      if (text.empty()) return nullptr;
      use->build = build_of(std::move(text), arch);
    }
    build = use->build;
  }
  if (mode == Mode::always) {
    build->run();
    if (build->state() == Build::State::failed)
      throw std::runtime_error("jit='always': the rule cannot be compiled: " + build->why() +
                               "; with jit='auto' it runs in the interpreter, with the same results");
  } else if (build->state() == Build::State::idle) {
    build->queue();
  }
  return build->state() == Build::State::ready ? build : nullptr;
}

std::string status() {
  try {
    const Nvrtc& nvrtc = Nvrtc::get();
    return "NVRTC " + nvrtc.version() + " (" + nvrtc.path() + ")";
  } catch (const NvrtcError& e) {
    return std::string("off: ") + e.what();
  }
}

}  // namespace nos::cuda::jit
