// Owns access to the codes of quantized states (ops/convert.h). A warp of the interpreter holds one block of them,
// which has a scale in common, and four neighbouring codes are one access of 4 bytes where the tensor is aligned.
#pragma once
#include "../common/memory.h"
#include "../common/unroll.h"

namespace nos::cuda {

#if defined(__CUDA_ARCH__)
// Loads one word, two or four. It is like load_words of memory.h, which the kernels without codes keep.
NOS_HD void load_any_words(const char* p, int words, float* v) {
  asm volatile(
      "{\n\t.reg .pred one, two, four;\n\t"
      "setp.eq.s32 one, %5, 1;\n\tsetp.eq.s32 two, %5, 2;\n\tsetp.eq.s32 four, %5, 4;\n\t"
      "@one ld.global.f32 %0, [%4];\n\t@two ld.global.v2.f32 {%0, %1}, [%4];\n\t"
      "@four ld.global.v4.f32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
      : "l"(p), "r"(words)
      : "memory");
}
NOS_HD void store_word(char* p, uint32_t word) {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(p), "r"(word) : "memory");
}
// Loads the scale of block i, and 0 where the slot has no codes.
NOS_HD float load_scale(const float* scales, int i, bool there) {
  float out = 0.0f;
  asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.u32 there, %2, 0;\n\t@there ld.global.f32 %0, [%1];\n\t}"
               : "+f"(out)
               : "l"(scales + i), "r"(static_cast<uint32_t>(there))
               : "memory");
  return out;
}
#else
// A device faults on a misaligned access, so the host build does, too.
NOS_HD void load_any_words(const char* p, int words, float* v) {
  if (reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(4 * words)) __builtin_trap();
  __builtin_memcpy(v, p, static_cast<size_t>(4 * words));
}
NOS_HD void store_word(char* p, uint32_t word) {
  if (reinterpret_cast<uintptr_t>(p) % 4) __builtin_trap();
  __builtin_memcpy(p, &word, 4);
}
NOS_HD float load_scale(const float* scales, int i, bool there) { return there ? scales[i] : 0.0f; }
#endif

// As fetch4 and widen4 of memory.h, for slots of which some are stored in codes.
NOS_HD void fetch4_any(const char* base, uint32_t dtype, int64_t i, float* v) {
  const int size = size_of_dtype(dtype);
  load_any_words(base + i * size, size, v);
}
NOS_HD float number_of(uint32_t dtype, uint32_t byte, float scale) {
  return math::from_code(dtype == kU8 ? static_cast<int32_t>(byte) : static_cast<int8_t>(byte), scale);
}
NOS_HD void widen4_any(uint32_t dtype, float scale, float* v) {
  if (!is_code(dtype)) return widen4<float, true>(dtype, v);
  const auto word = bits_as<uint32_t>(v[0]);
  NOS_UNROLL for (int e = 0; e < 4; ++e) v[e] = number_of(dtype, word >> 8 * e & 0xffu, scale);
}

}  // namespace nos::cuda
