// Owns the one libnvrtc of the process. It is found by dlopen at its first use; it is never linked and never required.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace nos::cuda::jit {

// Thrown when NVRTC is missing, is too old for the device, or refuses the text. The message says why and what to do.
class NvrtcError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Folders to look into after the libraries that the process has already loaded and before those of the system. This has
// no effect once NVRTC has been looked for.
void set_nvrtc_folders(std::vector<std::string> folders);

class Nvrtc {
 public:
  // The library; throws NvrtcError, the same one every time, when there is none. The environment variable NOS_NVRTC
  // overrides the search: the path of a libnvrtc, or 0 for none.
  static const Nvrtc& get();

  int major() const { return major_; }
  int minor() const { return minor_; }
  const std::string& path() const { return path_; }
  std::string version() const { return std::to_string(major_) + "." + std::to_string(minor_); }
  bool supports(int arch) const;  // arch: 90 for sm_90

  struct Cubin {
    std::string bytes;
    std::string log;  // ptxas -v: registers, spills
  };
  // Compiles one source to machine code of sm_<arch>. May be called on any thread. Throws NvrtcError.
  Cubin compile(std::string_view source, int arch) const;

  // The options that decide what code comes out, for cache keys.
  static std::string options(int arch);

 private:
  Nvrtc() = default;
  static Nvrtc find();
  bool load(const std::string& name);

  using Program = void*;
  int (*version_)(int*, int*);
  int (*num_archs_)(int*);
  int (*archs_)(int*);
  int (*create_)(Program*, const char*, const char*, int, const char* const*, const char* const*);
  int (*destroy_)(Program*);
  int (*compile_)(Program, int, const char* const*);
  int (*cubin_size_)(Program, size_t*);
  int (*cubin_)(Program, char*);
  int (*log_size_)(Program, size_t*);
  int (*log_)(Program, char*);
  const char* (*error_)(int);
  int major_ = 0, minor_ = 0;
  std::string path_;
  std::vector<int> known_archs_;
};

}  // namespace nos::cuda::jit
