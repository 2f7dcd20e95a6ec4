#include "nvrtc.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

namespace nos::cuda::jit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
constexpr const char* kRemedy =
    "install it with `pip install nvidia-cuda-nvrtc`, or name it in the environment variable NOS_NVRTC";

std::vector<std::string>& folders() {
  static std::vector<std::string> list;
  return list;
}

// NVRTC opens its builtins library by bare name, which fails unless that is on the loader's path or loaded already.
void load_builtins(const fs::path& library) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(library.parent_path(), error))
    if (entry.path().filename().string().rfind("libnvrtc-builtins.so", 0) == 0)
      dlopen(entry.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
}

}  // namespace

void set_nvrtc_folders(std::vector<std::string> list) { folders() = std::move(list); }

const Nvrtc& Nvrtc::get() {
  struct Found {
    std::optional<Nvrtc> nvrtc;
    std::string why;
  };
  static const Found& found = *[] {  // never freed, as a thread may compile until the process ends
    auto out = std::make_unique<Found>();
    try {
      out->nvrtc = find();
    } catch (const NvrtcError& e) {
      out->why = e.what();
    }
    return out.release();
  }();
  if (!found.nvrtc) throw NvrtcError(found.why);
  return *found.nvrtc;
}

bool Nvrtc::load(const std::string& name) {
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return false;
  const auto symbol = [&](auto& to, const char* function) {
    to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(dlsym(library, function));
    return to != nullptr;
  };
  if (!symbol(version_, "nvrtcVersion") || !symbol(num_archs_, "nvrtcGetNumSupportedArchs") ||
      !symbol(archs_, "nvrtcGetSupportedArchs") || !symbol(create_, "nvrtcCreateProgram") ||
      !symbol(destroy_, "nvrtcDestroyProgram") || !symbol(compile_, "nvrtcCompileProgram") ||
      !symbol(cubin_size_, "nvrtcGetCUBINSize") || !symbol(cubin_, "nvrtcGetCUBIN") ||
      !symbol(log_size_, "nvrtcGetProgramLogSize") || !symbol(log_, "nvrtcGetProgramLog") ||
      !symbol(error_, "nvrtcGetErrorString"))
    return false;
  Dl_info place{};
  path_ = dladdr(reinterpret_cast<void*>(version_), &place) && place.dli_fname ? place.dli_fname : name;
  load_builtins(path_);
  int count = 0;
  if (version_(&major_, &minor_) != 0 || num_archs_(&count) != 0) return false;
  known_archs_.resize(static_cast<size_t>(count));
  return archs_(known_archs_.data()) == 0;
}

Nvrtc Nvrtc::find() {
  Nvrtc out;
  if (const char* forced = std::getenv("NOS_NVRTC")) {
    if (std::string_view(forced) == "0") throw NvrtcError("switched off by NOS_NVRTC=0");
    if (out.load(forced)) return out;
    throw NvrtcError("NOS_NVRTC is '" + std::string(forced) +
                     "', which is not a libnvrtc that can be loaded; unset it or give the path of one");
  }
  for (const char* name : kNames)  // torch may have loaded it into this process
    if (void* loaded = dlopen(name, RTLD_NOW | RTLD_NOLOAD)) {
      dlclose(loaded);
      if (out.load(name)) return out;
    }
  std::vector<std::string> places = folders();
  places.insert(places.end(), {"", "/usr/local/cuda/lib64"});
  std::error_code error;
  for (const std::string& folder : places)
    for (const char* name : kNames)
      if (folder.empty() ? out.load(name)
                         : fs::exists(fs::path(folder) / name, error) && out.load(fs::path(folder) / name))
        return out;
  throw NvrtcError(std::string("libnvrtc was not found; ") + kRemedy);
}

bool Nvrtc::supports(int arch) const {
  return std::find(known_archs_.begin(), known_archs_.end(), arch) != known_archs_.end();
}

std::string Nvrtc::options(int arch) {
  return "--gpu-architecture=sm_" + std::to_string(arch) +
         " --std=c++20 --fmad=false -default-device --ptxas-options=-v";
}

Nvrtc::Cubin Nvrtc::compile(std::string_view source, int arch) const {
  if (!supports(arch))
    throw NvrtcError("NVRTC " + version() + " (" + path_ + ") does not know the architecture sm_" +
                     std::to_string(arch) + "; " + kRemedy);
  const auto check = [&](int code, const std::string& what) {
    if (code != 0) throw NvrtcError("NVRTC " + version() + ": " + what + ": " + error_(code));
  };
  Program program = nullptr;
  const std::string text(source);
  check(create_(&program, text.c_str(), "rule.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
  struct Destroy {
    int (*destroy)(Program*);
    Program* program;
    ~Destroy() { destroy(program); }
  } const destroy{destroy_, &program};

  std::vector<std::string> words;
  const std::string all = options(arch);
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find(' ', at), all.size());
    words.push_back(all.substr(at, end - at));
    at = end + 1;
  }
  std::vector<const char*> arguments;
  for (const std::string& w : words) arguments.push_back(w.c_str());
  const int code = compile_(program, static_cast<int>(arguments.size()), arguments.data());

  Cubin out;
  size_t size = 0;
  if (log_size_(program, &size) == 0 && size > 1) {
    out.log.resize(size);
    log_(program, out.log.data());
    out.log.resize(size - 1);  // the terminating zero
  }
  check(code, "compiling a rule failed (" + out.log.substr(0, 2000) + ")");
  check(cubin_size_(program, &size), "nvrtcGetCUBINSize");
  out.bytes.resize(size);
  check(cubin_(program, out.bytes.data()), "nvrtcGetCUBIN");
  return out;
}

}  // namespace nos::cuda::jit
