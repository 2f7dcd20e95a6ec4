// Owns Cursor: it lays out arrays one after the other in one stretch of memory.
#pragma once
#include <cstddef>
#include <cstring>
#include <vector>

namespace nos::cuda {

class Cursor {
 public:
  // Where an array of so many T begins, as a byte offset; a multiple of 16.
  template <class T>
  size_t array(size_t count) {
    const size_t begin = at_;
    at_ = (at_ + count * sizeof(T) + 15) / 16 * 16;
    return begin;
  }
  size_t bytes() const { return at_; }  // of all arrays so far

 private:
  size_t at_ = 0;
};

// Writes an array where a Cursor has laid it out.
template <class T>
void put(unsigned char* memory, size_t at, const std::vector<T>& list) {
  if (!list.empty()) std::memcpy(memory + at, list.data(), list.size() * sizeof(T));
}

}  // namespace nos::cuda
