// The AVX-512 instructions (F, DQ, BW, VL) of a loop. Registers 0 to 29 hold values, 30 and 31 are scratch within one
// instruction. k1 is the mask of the elements that are left, k2 the result of a comparison.
#include <utility>

#include "../expand.h"
#include "emit.h"

namespace nos::cpu::native::x86 {
namespace {

constexpr int kLanes = 16;
constexpr int kTemp = 30, kTemp2 = 31, kRestMask = 1, kTestMask = 2;
constexpr uint32_t kAllOnes = 0xffffffff;

class Avx512 final : public LoopEmitter {
 public:
  Avx512(Assembler& out, int first_table) : LoopEmitter(out, kLanes, first_table) {}

 private:
  void make_mask() override {
    out_.bzhi32(rcx, out_.constant(kAllOnes, 1), rcx);
    out_.kmov16(kRestMask, rcx);
  }

  Address operand(const Home& home) {
    return home.kind == Home::constant ? out_.constant(home.index, 1) : address(home);
  }

  void put(Opcode op, int reg, int v, const RegisterInstr& i, int k, int immediate = kNoImmediate) override {
    put_masked({}, op, reg, v, i, k, immediate);
  }

  void put_masked(EvexFlags f, Opcode op, int reg, int v, const RegisterInstr& i, int k, int immediate = kNoImmediate) {
    if (i.src[k] != kMemory) return out_.evex(op, reg, v, i.src[k], f, immediate);
    f.broadcast = i.memory.kind == Home::constant || i.memory.kind == Home::scalar;
    if (masked_ && i.memory.kind == Home::slot) f.mask = kRestMask, f.zero = op != vcmpps;
    out_.evex(op, reg, v, operand(i.memory), f, immediate);
  }

  void move(int to, int from) override { out_.evex(vmovaps, to, 0, from); }

  void broadcast(const RegisterInstr& i, EvexFlags f = {}) {
    f.memory = 4;
    out_.evex(vbroadcastss, i.dst, 0, operand(i.memory), f);
  }

  void load(const RegisterInstr& i) {
    if (i.src[0] == kMemory && i.memory.is_half()) return load_half(i);
    if (i.src[0] == kMemory && i.memory.is_code()) return load_codes(i);
    if (i.src[0] == kMemory && (i.memory.kind == Home::constant || i.memory.kind == Home::scalar)) return broadcast(i);
    unary(vmovups, i);
  }

  void load_half(const RegisterInstr& i) {
    EvexFlags f{.memory = 32};
    if (masked_) f.mask = kRestMask, f.zero = true;
    const bool bf16 = i.memory.kind == Home::slot_bf16;
    out_.evex(bf16 ? vpmovzxwd : vcvtph2ps, i.dst, 0, address(i.memory), f);
    if (bf16) shift(vpslld, i.dst, i.dst, 16);
  }

  // As from_code of convert.h.
  void load_codes(const RegisterInstr& i) {
    EvexFlags f{.memory = 16};
    if (masked_) f.mask = kRestMask, f.zero = true;
    const bool is_signed = i.memory.kind == Home::slot_i8;
    out_.evex(is_signed ? vpmovsxbd : vpmovzxbd, i.dst, 0, address(i.memory), f);
    out_.evex(vcvtdq2ps, i.dst, 0, i.dst);
    if (is_signed) with_constant(vpandd, kTemp, i.dst, 0x7fffffff);
    out_.evex(vmulps, i.dst, i.dst, is_signed ? kTemp : i.dst);
    out_.evex(vmulps, i.dst, i.dst, address_of_scale(i.memory), {.broadcast = true});
  }

  void shift(Opcode op, int to, int from, int bits) { out_.evex(op, op.extension, to, from, {}, bits); }

  // Rounds to nearest even: float16 by the instruction, bfloat16 as f32_to_bf16 of convert.h does.
  void store_half(const RegisterInstr& i) {
    EvexFlags f{.memory = 32};
    if (masked_) f.mask = kRestMask;
    const int x = i.src[0];
    if (i.memory.kind == Home::slot_f16) return out_.evex(vcvtps2ph, x, 0, address(i.memory), f, kToNearest);
    shift(vpsrld, kTemp, x, 16);
    with_constant(vpandd, kTemp2, kTemp, 1);
    out_.evex(vpaddd, kTemp2, kTemp2, x);
    with_constant(vpaddd, kTemp2, kTemp2, 0x7fff);
    shift(vpsrld, kTemp2, kTemp2, 16);
    out_.evex(vcmpps, kTestMask, x, x, {}, kUnordered);  // a NaN keeps its top bits and becomes quiet
    with_constant(vpord, kTemp2, kTemp, 0x40, kTestMask);
    out_.evex(vpmovdw, kTemp2, 0, address(i.memory), f);
  }

  void store(const RegisterInstr& i) {
    if (i.memory.is_half()) return store_half(i);
    EvexFlags f;
    if (masked_ && i.memory.kind == Home::slot) f.mask = kRestMask;
    out_.evex(vmovups_store, i.src[0], 0, address(i.memory), f);
  }

  void spill(const RegisterInstr& i) { out_.evex(vmovups_store, i.src[0], 0, address(i.memory)); }

  void compare(const RegisterInstr& i) { put(vcmpps, kTestMask, i.src[0], i, 1, i.predicate); }

  void test(const RegisterInstr& i) {
    compare(i);
    if (i.src[2] == kMemory) return broadcast(i, {kTestMask, true});
    out_.evex(vmovaps, i.dst, 0, i.src[2], {kTestMask, true});
  }

  void select(const RegisterInstr& i) {
    compare(i);
    put_masked({kTestMask}, vblendmps, i.dst, i.src[3], i, 2);
  }

  // to = op(v, constant) on 32-bit integers.
  void with_constant(Opcode op, int to, int v, uint32_t bits, uint8_t mask = 0) {
    out_.evex(op, to, v, out_.constant(bits, 1), {.mask = mask, .broadcast = true});
  }

  // dst = source 0, except where source 1 is neither +0 nor in the range of expand.h by its magnitude: there it is
  // vdivps(source 1, source 2). If the reach, source 3, is 0, it is the latter everywhere.
  void div_fix(const RegisterInstr& i) {
    const int x = i.src[1];
    with_constant(vpandd, kTemp, x, 0x7fffffff);
    with_constant(vpsubd, kTemp, kTemp, kLeastDividend);
    put(vpcmpud, kTestMask, kTemp, i, 3, kNotLess);
    static_assert(kDividendReach >> 30 == 1);
    put(vpsrld, vpsrld.extension, kTemp2, i, 3, 30);  // the least x out of range: 1 (+0 is in range) or 0
    out_.evex(vpcmpud, kTestMask, x, kTemp2, {.mask = kTestMask}, kNotLess);
    int c = i.src[2];
    if (i.dst == c) move(kTemp2, c), c = kTemp2;
    int from = x;
    if (i.dst == x) move(kTemp, x), from = kTemp;
    if (i.dst != i.src[0]) move(i.dst, i.src[0]);
    out_.kortest16(kTestMask, kTestMask);
    const int32_t done = out_.jump(Assembler::equal);
    out_.evex(vdivps, i.dst, from, c, {.mask = kTestMask});
    out_.patch(done, out_.here());
  }

  // The result replaces one of the sources, so one of them must be in dst.
  void join(RegisterInstr i) {
    if (i.dst == i.src[1]) std::swap(i.src[0], i.src[1]);
    if (i.src[2] != kMemory && i.dst == i.src[2]) return put(vpternlogd, i.dst, i.src[0], i, 1, kOrButAndWhereDst);
    if (i.dst != i.src[0]) move(i.dst, i.src[0]);
    put(vpternlogd, i.dst, i.src[1], i, 2, kOrButAndWhereM);
  }

  // The instruction may keep what was in dst, so it waits for it. That would be a value of the turn before: with it
  // every turn of a loop would wait for the one before. A move costs nothing but its decoding.
  void sign(const RegisterInstr& i) {
    if (i.dst != i.src[0] && i.dst != i.src[1]) move(i.dst, i.src[0]);
    put(vfixupimmps, i.dst, i.src[0], i, 1, kNoFaults);
  }

  // Golden Cove and its successors wait for what was in vpermps's destination, too: so the shift writes it before.
  void lookup(const RegisterInstr& i) {
    const int choice = i.dst == i.src[1] ? kTemp : i.dst;
    shift(vpsrld, choice, i.src[0], 29);
    put(vpermps, i.dst, choice, i, 1);
  }

  void instruction(const RegisterInstr& i) override {
    switch (i.op) {
#define NOS_VOP(id, sources, commutes, memory, ns, avx2, avx512) \
  case VOp::id:                                                  \
    return avx512;
#include "../vops.def"
#undef NOS_VOP
    }
  }
};

}  // namespace

void emit_avx512(Assembler& out, const RegisterLoop& loop, int first_table) { Avx512(out, first_table).emit(loop); }

}  // namespace nos::cpu::native::x86
