// Owns CodeMemory: pages of machine code, writable while they are filled and executable afterwards, never both (W^X).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace nos::cpu::native::x86 {

class CodeMemory {
 public:
  CodeMemory() = default;
  // Copies code into fresh pages and makes them executable. The object is empty when the system refuses either.
  explicit CodeMemory(std::span<const uint8_t> code);
  ~CodeMemory();
  CodeMemory(CodeMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  CodeMemory& operator=(CodeMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  explicit operator bool() const { return data_ != nullptr; }
  const uint8_t* data() const { return static_cast<const uint8_t*>(data_); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;  // bytes mapped
};

}  // namespace nos::cpu::native::x86
