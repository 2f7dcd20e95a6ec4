// Owns the prefetching of tensors. Reading a tensor follows a chain of addresses, and after a backward pass each of
// them is a cache miss. So tensors of a list are fetched a few ahead: first the Python object, then the body to which
// one of its first two words points in torch. These are hints: for other objects they fetch something useless.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>

namespace nos::bind {

inline constexpr size_t kFetchObject = 8, kFetchBody = 4;  // tensors ahead

inline void prefetch_object(const PyObject* item) {
  __builtin_prefetch(item);
  __builtin_prefetch(reinterpret_cast<const char*>(item) + 32);
}

inline void prefetch_body(const PyObject* item) {
  constexpr Py_ssize_t kWords = 2, kLines = 3, kLine = 64;
  if (Py_TYPE(item)->tp_basicsize < static_cast<Py_ssize_t>(sizeof(PyObject) + kWords * sizeof(void*))) return;
  const auto* words = reinterpret_cast<const char* const*>(item + 1);
  for (Py_ssize_t w = 0; w < kWords; ++w)
    for (Py_ssize_t line = 0; line < kLines; ++line) __builtin_prefetch(words[w] + line * kLine);
}

}  // namespace nos::bind
