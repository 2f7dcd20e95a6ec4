// The AVX-512 instructions (F, DQ, BW, VL) of a body. Registers 0..29 hold values, 30 and 31 are for one instruction's
// own use; k1 is the mask of the elements that are left, k2 the outcome of a comparison.
#include <stdexcept>
#include <string>
#include <utility>

#include "emit.h"
#include "expand.h"

namespace nos::cpu::native {
namespace {

constexpr int kTemp = 30, kTemp2 = 31, kRestMask = 1, kTestMask = 2;
constexpr uint32_t kAllOnes = 0xffffffff;

class Avx512 final : public LoopEmitter {
 public:
  Avx512(Assembler& out, std::vector<uint32_t>& pool, int first_table) : LoopEmitter(out, pool, 16, first_table) {}

 private:
  void begin(const Body&) override {}

  void make_mask() override {
    out_.bzhi32(rcx, {rax, kNoIndex, 1, true, pool_word(kAllOnes, 1)}, rcx);
    out_.kmovw(kRestMask, rcx);
  }

  // reg = op(v, source k of i), the source being a register or the memory operand of i.
  void put(VecOp op, int reg, int v, const MInstr& i, int k, EvexFlags f = {}, int immediate = -1) {
    if (i.src[k] != kMemory) {
      out_.evex(op, reg, v, i.src[k], f);
    } else {
      Address m = address(i.memory);
      if (i.memory.kind == Home::constant) m = {rax, kNoIndex, 1, true, pool_word(i.memory.index, 1)};
      f.broadcast = i.memory.kind == Home::constant || i.memory.kind == Home::scalar;
      if (masked_ && i.memory.kind == Home::slot) f.mask = kRestMask, f.zero = op.byte != 0xc2;
      out_.evex(op, reg, v, m, f, immediate >= 0 ? 1 : 0);
    }
    if (immediate >= 0) out_.byte(immediate);
  }

  void binary(VecOp op, const MInstr& i) { put(op, i.dst, i.src[0], i, 1); }
  void move(int to, int from) { out_.evex({1, 0, 0x28}, to, 0, from); }

  void load(const MInstr& i) {
    if (i.src[0] == kMemory && i.memory.is_half()) return load_half(i);
    const bool one = i.src[0] == kMemory && (i.memory.kind == Home::constant || i.memory.kind == Home::scalar);
    if (one)
      broadcast(i.dst, i, {});
    else
      put({1, 0, 0x10}, i.dst, 0, i, 0);
  }

  void broadcast(int to, const MInstr& i, EvexFlags f) {
    Address m = address(i.memory);
    if (i.memory.kind == Home::constant) m = {rax, kNoIndex, 1, true, pool_word(i.memory.index, 1)};
    f.memory = 4;
    out_.evex({2, 1, 0x18}, to, 0, m, f);
  }

  void load_half(const MInstr& i) {
    EvexFlags f{.memory = 32};
    if (masked_) f.mask = kRestMask, f.zero = true;
    const bool bf16 = i.memory.kind == Home::slot_bf16;
    out_.evex({2, 1, static_cast<uint8_t>(bf16 ? 0x33 : 0x13)}, i.dst, 0, address(i.memory),
              f);  // vpmovzxwd, vcvtph2ps
    if (bf16) shift(6, i.dst, i.dst, 16);
  }

  // vpsrld (extension 2) or vpslld (6)
  void shift(int extension, int to, int from, int bits) {
    out_.evex({1, 1, 0x72}, extension, to, from);
    out_.byte(bits);
  }

  // Rounded to nearest even by the instruction (f16) or as f32_to_bf16 of convert.h does.
  void store_half(const MInstr& i) {
    EvexFlags f{.memory = 32};
    if (masked_) f.mask = kRestMask;
    const int x = i.src[0];
    if (i.memory.kind == Home::slot_f16) {
      out_.evex({3, 1, 0x1d}, x, 0, address(i.memory), f, 1);  // vcvtps2ph
      return out_.byte(0);
    }
    constexpr VecOp kAdd{1, 1, 0xfe}, kOr{1, 1, 0xeb};
    shift(2, kTemp, x, 16);
    with_constant(kAnd, kTemp2, kTemp, 1);
    out_.evex(kAdd, kTemp2, kTemp2, x);
    with_constant(kAdd, kTemp2, kTemp2, 0x7fff);
    shift(2, kTemp2, kTemp2, 16);
    out_.evex({1, 0, 0xc2}, kTestMask, x, x);  // a NaN keeps its top bits and becomes quiet
    out_.byte(kUnordered);
    with_constant(kOr, kTemp2, kTemp, 0x40, kTestMask);
    out_.evex({2, 2, 0x33}, kTemp2, 0, address(i.memory), f);  // vpmovdw
  }

  void store(const MInstr& i) {
    if (i.memory.is_half()) return store_half(i);
    EvexFlags f;
    if (masked_ && i.memory.kind == Home::slot) f.mask = kRestMask;
    out_.evex({1, 0, 0x11}, i.src[0], 0, address(i.memory), f);
  }

  void compare(const MInstr& i) { put({1, 0, 0xc2}, kTestMask, i.src[0], i, 1, {}, i.predicate); }

  // One source must be in dst. 132: dst * m + v. 213: v * dst + m. 231: v * m + dst. negative: the product is
  // subtracted.
  void fma(MInstr i, bool negative) {
    const auto form = [&](int byte) { return VecOp{2, 1, static_cast<uint8_t>(byte + (negative ? 4 : 0))}; };
    if (i.src[0] == kMemory || (i.src[1] != kMemory && i.dst == i.src[1])) std::swap(i.src[0], i.src[1]);
    const int a = i.src[0], b = i.src[1], c = i.src[2];
    if (i.dst == c) return put(form(0xb8), i.dst, a, i, 1);
    if (c == kMemory) {
      if (i.dst != a) move(i.dst, a);
      return put(form(0xa8), i.dst, b, i, 2);
    }
    if (i.dst == a) return put(form(0x98), i.dst, c, i, 1);
    move(i.dst, c);
    put(form(0xb8), i.dst, a, i, 1);
  }

  static constexpr VecOp kAnd{1, 1, 0xdb}, kSubtract{1, 1, 0xfa}, kCompareUnsigned{3, 1, 0x1e};
  static constexpr int kNotLess = 5;  // predicate of kCompareUnsigned

  // op on 32-bit integers with a constant.
  void with_constant(VecOp op, int to, int v, uint32_t bits, int mask = 0, int immediate = -1) {
    out_.evex(op, to, v, {rax, kNoIndex, 1, true, pool_word(bits, 1)},
              {.mask = static_cast<uint8_t>(mask), .broadcast = true}, immediate >= 0 ? 1 : 0);
    if (immediate >= 0) out_.byte(immediate);
  }

  // dst = source 0, but vdivps(source 1, source 2) where source 1 is not +0 and its magnitude is not in the range of
  // expand.h; everywhere if the reach, source 3, is 0.
  void div_fix(const MInstr& i) {
    const int x = i.src[1];
    with_constant(kAnd, kTemp, x, 0x7fffffff);
    with_constant(kSubtract, kTemp, kTemp, kLeastDividend);
    put(kCompareUnsigned, kTestMask, kTemp, i, 3, {}, kNotLess);
    constexpr VecOp kShiftRight{1, 1, 0x72};
    static_assert(kDividendReach >> 30 == 1);
    put(kShiftRight, 2, kTemp2, i, 3, {}, 30);  // the least x that counts as not in the range: 1, or 0
    out_.evex(kCompareUnsigned, kTestMask, x, kTemp2, {.mask = kTestMask});
    out_.byte(kNotLess);
    int c = i.src[2];
    if (i.dst == c) move(kTemp2, c), c = kTemp2;
    int from = x;
    if (i.dst == x) move(kTemp, x), from = kTemp;
    if (i.dst != i.src[0]) move(i.dst, i.src[0]);
    out_.kortestw(kTestMask, kTestMask);
    const int32_t done = out_.jump(Assembler::equal);
    out_.evex({1, 0, 0x5e}, i.dst, from, c, {.mask = kTestMask});
    out_.patch(done, out_.here());
  }

  // vpternlogd: bit (dst << 2 | v << 1 | m) of the immediate. One source must be in dst.
  void join(MInstr i) {
    if (i.dst == i.src[1]) std::swap(i.src[0], i.src[1]);
    if (i.src[2] != kMemory && i.dst == i.src[2]) return put({3, 1, 0x25}, i.dst, i.src[0], i, 1, {}, 0x8e);
    if (i.dst != i.src[0]) move(i.dst, i.src[0]);
    put({3, 1, 0x25}, i.dst, i.src[1], i, 2, {}, 0xd4);
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
        return put({3, 1, 0x08}, i.dst, 0, i, 0, {}, 9);  // down, inexact not reported
      case V::fma:
        return fma(i, false);
      case V::fnma:
        return fma(i, true);
      case V::div_fix:
        return div_fix(i);
      case V::test:
        compare(i);
        if (i.src[2] == kMemory) return broadcast(i.dst, i, {kTestMask, true});
        return out_.evex({1, 0, 0x28}, i.dst, 0, i.src[2], {kTestMask, true});
      case V::select:
        compare(i);
        return put({2, 1, 0x65}, i.dst, i.src[3], i, 2, {kTestMask});
      case V::join:
        return join(i);
      case V::sign:
        return put({3, 1, 0x54}, i.dst, i.src[0], i, 1, {}, 0);
      case V::lookup:
        shift(2, kTemp, i.src[0], 29);
        return put({2, 1, 0x16}, i.dst, kTemp, i, 1);
      case V::copy:
      case V::load:
        return load(i);
      case V::store:
        return store(i);
      case V::spill:
        return out_.evex({1, 0, 0x11}, i.src[0], 0, address(i.memory));
      case V::mask:
        break;  // AVX2 only
    }
    throw std::logic_error("AVX-512 has no code for vector op " + std::to_string(static_cast<int>(i.op)));
  }
};

}  // namespace

void emit_avx512(Assembler& out, std::vector<uint32_t>& pool, const Body& body, int first_table) {
  Avx512(out, pool, first_table).emit(body);
}

}  // namespace nos::cpu::native
