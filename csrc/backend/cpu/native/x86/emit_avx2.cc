// The AVX2 and FMA instructions of a loop. Registers 0 to 12 hold values, 13 and 14 are scratch within one instruction,
// and 15 is the mask of the elements that are left. A scalar that is a memory operand is broadcast into the stack frame
// before the loop.
#include <algorithm>

#include "emit.h"

namespace nos::cpu::native::x86 {
namespace {

constexpr int kLanes = 8;
constexpr int kTemp = 13, kLoaded = 14, kRestMask = 15;

class Avx2 final : public LoopEmitter {
 public:
  Avx2(Assembler& out, int first_table) : LoopEmitter(out, kLanes, first_table) {}

 private:
  void plan_frame(const RegisterLoop& loop) override {
    for (const RegisterInstr& i : loop.code)
      if (i.op != VOp::load && i.op != VOp::copy && i.memory.kind == Home::scalar && number_of(i.memory.index) < 0)
        scalars_.push_back(i.memory.index);
    first_scalar_ = frame_vectors_;
    frame_vectors_ += static_cast<int>(scalars_.size());
  }

  void fill_frame() override {
    for (uint32_t s : scalars_) {
      out_.vex(vbroadcastss, kTemp, 0, address({Home::scalar, s}));
      out_.vex(vmovups_store, kTemp, 0, in_frame(s));
    }
  }

  // The position of a scalar among those in the frame, or -1.
  int number_of(uint32_t scalar) const {
    const auto found = std::find(scalars_.begin(), scalars_.end(), scalar);
    return found == scalars_.end() ? -1 : static_cast<int>(found - scalars_.begin());
  }

  Address in_frame(uint32_t scalar) const {
    return address({Home::spill, static_cast<uint32_t>(first_scalar_ + number_of(scalar))});
  }

  // Lane k takes part when k < rcx.
  void make_mask() override {
    out_.vmov32(kRestMask, rcx);
    out_.vex(vpbroadcastd, kRestMask, 0, kRestMask);
    out_.vex(vpcmpgtd, kRestMask, kRestMask, out_.lane_numbers());
  }

  bool needs_mask(const Home& home) const { return masked_ && home.kind == Home::slot; }

  void put(Opcode op, int reg, int v, const RegisterInstr& i, int k, int immediate = kNoImmediate) override {
    const Home& home = i.memory;
    if (i.src[k] != kMemory) {
      out_.vex(op, reg, v, i.src[k], immediate);
    } else if (needs_mask(home)) {
      out_.vex(vmaskmovps, kLoaded, kRestMask, address(home));
      out_.vex(op, reg, v, kLoaded, immediate);
    } else {
      const Address m = home.kind == Home::constant ? out_.constant(home.index, kLanes)
                        : home.kind == Home::scalar ? in_frame(home.index)
                                                    : address(home);
      out_.vex(op, reg, v, m, immediate);
    }
  }

  void move(int to, int from) override { out_.vex(vmovaps, to, 0, from); }

  void load(const RegisterInstr& i) {
    if (i.src[0] == kMemory && i.memory.kind == Home::scalar)
      out_.vex(vbroadcastss, i.dst, 0, address(i.memory));
    else if (i.src[0] == kMemory && needs_mask(i.memory))
      out_.vex(vmaskmovps, i.dst, kRestMask, address(i.memory));
    else
      unary(vmovups, i);
  }

  void store(const RegisterInstr& i) {
    if (needs_mask(i.memory))
      out_.vex(vmaskmovps_store, i.src[0], kRestMask, address(i.memory));
    else
      spill(i);
  }

  void spill(const RegisterInstr& i) { out_.vex(vmovups_store, i.src[0], 0, address(i.memory)); }

  void mask(const RegisterInstr& i) { put(vcmpps, i.dst, i.src[0], i, 1, i.predicate); }

  void select(const RegisterInstr& i) {
    put(vcmpps, kTemp, i.src[0], i, 1, i.predicate);
    put(vblendvps, i.dst, i.src[3], i, 2, kTemp << 4);  // the mask's register is in the immediate
  }

  void lookup(const RegisterInstr& i) {
    out_.vex(vpsrld, vpsrld.extension, kTemp, i.src[0], 29);
    put(vpermps, i.dst, kTemp, i, 1);
  }

  void instruction(const RegisterInstr& i) override {
    switch (i.op) {
#define NOS_VOP(id, sources, commutes, memory, ns, avx2, avx512) \
  case VOp::id:                                                  \
    return avx2;
#include "../vops.def"
#undef NOS_VOP
    }
  }

  std::vector<uint32_t> scalars_;  // the scalars that the frame holds
  int first_scalar_ = 0;
};

}  // namespace

void emit_avx2(Assembler& out, const RegisterLoop& loop, int first_table) { Avx2(out, first_table).emit(loop); }

}  // namespace nos::cpu::native::x86
