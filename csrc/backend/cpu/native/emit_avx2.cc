// The AVX2 and FMA instructions of a body. Registers 0..12 hold values, 13 and 14 are for one instruction's own use, 15
// is the mask of the elements that are left. A scalar as a memory operand is broadcast into the stack frame before the
// loop.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "emit.h"

namespace nos::cpu::native {
namespace {

constexpr int kTemp = 13, kLoaded = 14, kRestMask = 15;

class Avx2 final : public LoopEmitter {
 public:
  Avx2(Assembler& out, std::vector<uint32_t>& pool, int first_table) : LoopEmitter(out, pool, 8, first_table) {}

 private:
  void begin(const Body& body) override {
    for (const MInstr& i : body.code)
      if (i.op != V::load && i.op != V::copy && i.memory.kind == Home::scalar && place_of(i.memory.index) < 0)
        scalars_.push_back(i.memory.index);
    first_scalar_ = frame_vectors_;
    frame_vectors_ += static_cast<int>(scalars_.size());
  }

  int place_of(uint32_t scalar) const {
    const auto at = std::find(scalars_.begin(), scalars_.end(), scalar);
    return at == scalars_.end() ? -1 : static_cast<int>(at - scalars_.begin());
  }

  void before_loop() override {
    for (uint32_t s : scalars_) {
      broadcast(kTemp, address({Home::scalar, s}));
      out_.vex(true, {1, 0, 0x11}, kTemp, 0, in_frame(s));
    }
  }

  Address in_frame(uint32_t scalar) const {
    return address({Home::spill, static_cast<uint32_t>(first_scalar_ + place_of(scalar))});
  }

  void broadcast(int to, const Address& from) { out_.vex(true, {2, 1, 0x18}, to, 0, from); }

  // Lane k counts when k < rcx.
  void make_mask() override {
    out_.vex(false, {1, 1, 0x6e}, kRestMask, 0, rcx);                        // vmovd
    out_.vex(true, {2, 1, 0x58}, kRestMask, 0, kRestMask);                   // vpbroadcastd
    out_.vex(true, {1, 1, 0x66}, kRestMask, kRestMask, pool(pool_lanes()));  // vpcmpgtd
  }
  static Address pool(int32_t at) { return {rax, kNoIndex, 1, true, at}; }

  void masked_load(int to, const Address& from) { out_.vex(true, {2, 1, 0x2c}, to, kRestMask, from); }

  // reg = op(v, source k of i), the source being a register or the memory operand of i.
  void put(VecOp op, int reg, int v, const MInstr& i, int k, int immediate = -1) {
    const Home& home = i.memory;
    if (i.src[k] != kMemory) {
      out_.vex(true, op, reg, v, i.src[k]);
    } else if (masked_ && home.kind == Home::slot) {
      masked_load(kLoaded, address(home));
      out_.vex(true, op, reg, v, kLoaded);
    } else {
      const Address m = home.kind == Home::constant ? pool(pool_word(home.index, 8))
                        : home.kind == Home::scalar ? in_frame(home.index)
                                                    : address(home);
      out_.vex(true, op, reg, v, m, immediate >= 0 ? 1 : 0);
    }
    if (immediate >= 0) out_.byte(immediate);
  }

  void binary(VecOp op, const MInstr& i) { put(op, i.dst, i.src[0], i, 1); }
  void move(int to, int from) { out_.vex(true, {1, 0, 0x28}, to, 0, from); }

  void load(const MInstr& i) {
    if (i.src[0] == kMemory && i.memory.kind == Home::scalar)
      broadcast(i.dst, address(i.memory));
    else if (i.src[0] == kMemory && masked_ && i.memory.kind == Home::slot)
      masked_load(i.dst, address(i.memory));
    else
      put({1, 0, 0x10}, i.dst, 0, i, 0);
  }

  void store(const MInstr& i) {
    if (masked_ && i.memory.kind == Home::slot)
      out_.vex(true, {2, 1, 0x2e}, i.src[0], kRestMask, address(i.memory));
    else
      out_.vex(true, {1, 0, 0x11}, i.src[0], 0, address(i.memory));
  }

  // One source must be in dst. 132: dst * m + v. 213: v * dst + m. 231: v * m + dst.
  void fma(MInstr i) {
    if (i.src[0] == kMemory || (i.src[1] != kMemory && i.dst == i.src[1])) std::swap(i.src[0], i.src[1]);
    const int a = i.src[0], b = i.src[1], c = i.src[2];
    if (i.dst == c) return put({2, 1, 0xb8}, i.dst, a, i, 1);
    if (c == kMemory) {
      if (i.dst != a) move(i.dst, a);
      return put({2, 1, 0xa8}, i.dst, b, i, 2);
    }
    if (i.dst == a) return put({2, 1, 0x98}, i.dst, c, i, 1);
    move(i.dst, c);
    put({2, 1, 0xb8}, i.dst, a, i, 1);
  }

  void instruction(const MInstr& i) override {
    switch (i.op) {
      case V::add:
        return binary({1, 0, 0x58}, i);
      case V::mul:
        return binary({1, 0, 0x59}, i);
      case V::sub:
        return binary({1, 0, 0x5c}, i);
      case V::min:
        return binary({1, 0, 0x5d}, i);
      case V::div:
        return binary({1, 0, 0x5e}, i);
      case V::max:
        return binary({1, 0, 0x5f}, i);
      case V::band:
        return binary({1, 0, 0x54}, i);
      case V::bor:
        return binary({1, 0, 0x56}, i);
      case V::bxor:
        return binary({1, 0, 0x57}, i);
      case V::sqrt:
        return put({1, 0, 0x51}, i.dst, 0, i, 0);
      case V::floor:
        return put({3, 1, 0x08}, i.dst, 0, i, 0, 9);  // down, inexact not reported
      case V::fma:
        return fma(i);
      case V::mask:
        return put({1, 0, 0xc2}, i.dst, i.src[0], i, 1, i.predicate);
      case V::select:
        put({1, 0, 0xc2}, kTemp, i.src[0], i, 1, i.predicate);
        return put({3, 1, 0x4a}, i.dst, i.src[3], i, 2, kTemp << 4);  // vblendvps, the mask in its immediate
      case V::lookup:
        out_.vex(true, {1, 1, 0x72}, 2, kTemp, i.src[0]);  // vpsrld, its extension in reg and its result in vvvv
        out_.byte(29);
        return put({2, 1, 0x16}, i.dst, kTemp, i, 1);
      case V::copy:
      case V::load:
        return load(i);
      case V::store:
        return store(i);
      case V::spill:
        return out_.vex(true, {1, 0, 0x11}, i.src[0], 0, address(i.memory));
      case V::test:
      case V::join:
      case V::fnma:
      case V::div_fix:
      case V::sign:
        break;  // AVX-512 only
    }
    throw std::logic_error("AVX2 has no code for vector op " + std::to_string(static_cast<int>(i.op)));
  }

  std::vector<uint32_t> scalars_;  // those that the frame holds
  int first_scalar_ = 0;
};

}  // namespace

void emit_avx2(Assembler& out, std::vector<uint32_t>& pool, const Body& body, int first_table) {
  Avx2(out, pool, first_table).emit(body);
}

}  // namespace nos::cpu::native
