// Owns the disk cache of machine code. Each entry is a file that is written beside its place and then renamed, so that
// a reader sees a whole file or none. Whatever is wrong with a file, or with the folder, is a miss.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace nos::cuda::jit {

class DiskCache {
 public:
  explicit DiskCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // The cache in the folder that NOS_JIT_CACHE names, where 0 stands for none; else in nos_ext/jit under XDG_CACHE_HOME
  // or ~/.cache; and none where neither is known.
  static std::optional<DiskCache> of_user();

  std::optional<std::string> get(std::string_view key) const;
  void put(std::string_view key, std::string_view bytes) const;
  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path path_of(std::string_view key) const;

  // The least recently used entries go when there are more.
  static constexpr size_t kMostFiles = 1024;

 private:
  void prune() const;
  std::filesystem::path folder_;
};

}  // namespace nos::cuda::jit
