#include "cache.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

namespace nos::cuda::jit {
namespace {

namespace fs = std::filesystem;

// A file holds Head, the key, and the bytes. The whole key is compared, so two keys with one file name are a miss.
struct Head {
  char magic[4] = {'N', 'O', 'S', 'K'};
  uint32_t version = 1;
  uint64_t key_bytes = 0, data_bytes = 0, check = 0;
};

// FNV-1a.
uint64_t hash(std::string_view text, uint64_t h = 0xcbf29ce484222325u) {
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

constexpr std::string_view kEnding = ".cubin", kUnfinishedEnding = ".part";
constexpr auto kUnfinishedAge = std::chrono::hours(1);  // an older one was left by a process that died
constexpr size_t kMostBytes = 64 << 20;                 // bytes of an entry; one that claims more is damaged

}  // namespace

std::optional<DiskCache> DiskCache::of_user() {
  if (const char* own = std::getenv("NOS_JIT_CACHE"))
    return std::string_view(own) == "0" ? std::nullopt : std::optional<DiskCache>(fs::path(own));
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache == '/')
    return DiskCache(fs::path(cache) / "nos_ext" / "jit");
  if (const char* home = std::getenv("HOME"); home && *home == '/')
    return DiskCache(fs::path(home) / ".cache" / "nos_ext" / "jit");
  return std::nullopt;
}

fs::path DiskCache::path_of(std::string_view key) const {
  char name[33];
  std::snprintf(name, sizeof name, "%016llx%016llx", static_cast<unsigned long long>(hash(key)),
                static_cast<unsigned long long>(hash(key, 0x9e3779b97f4a7c15u)));
  return folder_ / (std::string(name) + std::string(kEnding));
}

std::optional<std::string> DiskCache::get(std::string_view key) const {
  const fs::path path = path_of(key);
  std::ifstream in(path, std::ios::binary);
  Head head;
  if (!in.read(reinterpret_cast<char*>(&head), sizeof head)) return std::nullopt;
  const Head good;
  if (std::memcmp(head.magic, good.magic, sizeof head.magic) != 0 || head.version != good.version ||
      head.key_bytes != key.size() || head.data_bytes > kMostBytes)
    return std::nullopt;
  std::string found(head.key_bytes, '\0'), data(head.data_bytes, '\0');
  if (!in.read(found.data(), static_cast<std::streamsize>(found.size())) ||
      !in.read(data.data(), static_cast<std::streamsize>(data.size())) || found != key || hash(data) != head.check)
    return std::nullopt;
  std::error_code ignored;
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);  // for prune()
  return data;
}

void DiskCache::put(std::string_view key, std::string_view bytes) const {
  static std::atomic<unsigned> number{0};
  std::error_code error;
  if (fs::create_directories(folder_, error)) fs::permissions(folder_, fs::perms::owner_all, error);
  const fs::path path = path_of(key);
  fs::path unfinished = path;
  unfinished += "." + std::to_string(getpid()) + "." + std::to_string(number++) + std::string(kUnfinishedEnding);
  {
    Head head;
    head.key_bytes = key.size();
    head.data_bytes = bytes.size();
    head.check = hash(bytes);
    std::ofstream out(unfinished, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(&head), sizeof head);
    out.write(key.data(), static_cast<std::streamsize>(key.size()));
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) {
      fs::remove(unfinished, error);
      return;
    }
  }
  fs::rename(unfinished, path, error);
  if (error) fs::remove(unfinished, error);
  if (number % 64 == 1) prune();
}

void DiskCache::prune() const {
  std::vector<std::pair<fs::file_time_type, fs::path>> entries;
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    const fs::path ending = it->path().extension();
    std::error_code gone;  // another process may prune too
    const auto time = it->last_write_time(gone);
    if (gone) continue;
    if (ending == kUnfinishedEnding && now - time > kUnfinishedAge) fs::remove(it->path(), gone);
    if (ending == kEnding) entries.emplace_back(time, it->path());
  }
  if (entries.size() <= kMostFiles) return;
  std::sort(entries.begin(), entries.end());
  for (size_t i = 0; i < entries.size() - kMostFiles; ++i) fs::remove(entries[i].second, error);
}

}  // namespace nos::cuda::jit
