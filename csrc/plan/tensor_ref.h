// Owns TensorRef: what the plan needs to know of a caller's tensor. It borrows; the caller keeps the tensor alive.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nos {

// i8 and u8 are for states only: codes of a number each, with a scale for every block of elements (ops/convert.h). What
// is never below 0 can be u8.
enum class DType : uint8_t { f32, f64, bf16, f16, i8, u8 };

constexpr bool is_half(DType t) { return t == DType::bf16 || t == DType::f16; }
constexpr bool is_quantized(DType t) { return t == DType::i8 || t == DType::u8; }

// Elements, in the order of memory, that have a scale in common.
inline constexpr int64_t kScaleBlock = 256;
constexpr int64_t scale_count(int64_t elements) { return (elements + kScaleBlock - 1) / kScaleBlock; }

constexpr int size_of(DType t) {
  switch (t) {
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::i8:
    case DType::u8:
      return 1;
  }
  return 0;
}
constexpr std::string_view name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    case DType::i8:
      return "int8";
    case DType::u8:
      return "uint8";
  }
  return "";
}

enum class DeviceKind : uint8_t {
#define NOS_DEVICE(name, dlpack) name,
#include "devices.def"
#undef NOS_DEVICE
};
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int32_t number = 0;  // among those of its kind
  bool operator==(const Device&) const = default;
};

struct TensorRef {
  void* data = nullptr;
  const int64_t* shape = nullptr;    // ndim extents
  const int64_t* strides = nullptr;  // ndim strides in elements
  int64_t numel = 0;
  int32_t ndim = 0;
  Device device;
  DType dtype = DType::f32;
  bool present = true;  // false for a gradient that is None: the parameter is skipped
};

// One list of the caller's tensors, with the name that messages use: "params", "grads" or "state['m']".
struct TensorList {
  std::string name;
  std::vector<TensorRef> tensors;
};

}  // namespace nos
