#include "code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace nos::cpu::native::x86 {
namespace {

// For tests: makes this process behave like a system that never grants executable pages.
bool refused_for_test() {
  static const bool refused = std::getenv("NOS_TEST_REFUSE_EXEC") != nullptr;
  return refused;
}

}  // namespace

CodeMemory::CodeMemory(std::span<const uint8_t> code) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (code.empty() || refused_for_test()) return;
  const size_t size = (code.size() + page - 1) / page * page;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return;
  std::memcpy(at, code.data(), code.size());
  if (mprotect(at, size, PROT_READ | PROT_EXEC) != 0) {
    munmap(at, size);
    return;
  }
  data_ = at;
  size_ = size;
}

CodeMemory::~CodeMemory() {
  if (data_) munmap(data_, size_);
}

}  // namespace nos::cpu::native::x86
