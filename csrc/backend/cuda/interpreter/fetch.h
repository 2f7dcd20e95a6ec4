// Owns the instructions as a block decodes them into shared memory, and how its threads walk through them.
#pragma once
#include "../../../ops/portable.h"
#include "isa.h"

namespace nos::cuda {

// An instruction as threads read it from shared memory. Where it has an immediate, the value is decoded already.
template <class T>
struct Decoded;
template <>
struct Decoded<float> {
  uint32_t op;
  uint32_t bits;  // bits of the immediate, or arg
};
template <>
struct alignas(16) Decoded<double> {
  uint32_t op;
  uint32_t arg;
  double c;
};

NOS_HD void decode(Decoded<float>& d, Ins in, const float* scalars) {
  d.op = in.op & ~kScalarFlag;
  d.bits = in.op & kScalarFlag ? bits_as<uint32_t>(scalars[in.arg]) : in.arg;
}
NOS_HD void decode(Decoded<double>& d, Ins in, const double* scalars) {
  d.op = in.op & ~kScalarFlag;
  d.arg = in.arg;
  d.c = in.op & kScalarFlag ? scalars[in.arg] : 0.0;
}

// Walks through the code. The device uses 32-bit shared addresses for that. Short instructions are loaded one ahead, so
// that the load is over by the time that the instruction before is.
template <class T>
class Fetch {
 public:
#if defined(__CUDA_ARCH__)
  NOS_HD explicit Fetch(const Decoded<T>* code) : at_(static_cast<uint32_t>(__cvta_generic_to_shared(code))) {
    if constexpr (sizeof(T) == 4) load();
  }
  NOS_HD void next(uint32_t& op, uint32_t& arg, float& c) {
    op = op_, arg = arg_;
    c = __uint_as_float(arg);
    load();
  }
  NOS_HD void next(uint32_t& op, uint32_t& arg, double& c) {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(op), "=r"(arg) : "r"(at_));
    asm volatile("ld.shared.f64 %0, [%1];" : "=d"(c) : "r"(at_ + 8));
    at_ += 16;
  }

 private:
  NOS_HD void load() {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(op_), "=r"(arg_) : "r"(at_));
    at_ += 8;
  }

  uint32_t at_, op_, arg_;
#else
  explicit Fetch(const Decoded<T>* code) : at_(code) {}
  void next(uint32_t& op, uint32_t& arg, float& c) {
    op = at_->op, arg = at_->bits, c = bits_as<float>(arg);
    ++at_;
  }
  void next(uint32_t& op, uint32_t& arg, double& c) {
    op = at_->op, arg = at_->arg, c = at_->c;
    ++at_;
  }

 private:
  const Decoded<T>* at_;
#endif
};

}  // namespace nos::cuda
