// Owns Assembler, which writes x86-64 machine code into a byte buffer, followed by the constants that the code reads.
// It knows only what the loops of emit.cc need.
//
//   VEX   C5 | R' vvvv' L pp |                        op modrm      map 0F, registers 0..7 in r/m
//         C4 | R' X' B' mmmmm | W vvvv' L pp |        op modrm ...
//   EVEX  62 | R' X' B' R2' 0 mmm | W vvvv' 1 pp | z LL b V2' aaa | op modrm ...
//
// A primed bit is stored inverted. R R2 extend modrm.reg, B (and X for a vector register) modrm.r/m, X the index, B the
// base; V2 extends vvvv. aaa is the mask register, z zeroes what it leaves out, b broadcasts one float from memory. An
// EVEX displacement of one byte counts units of the bytes that the instruction reads or writes.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "opcodes.h"

namespace nos::cpu::native::x86 {

enum Gpr : uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
inline constexpr uint8_t kNoIndex = 0xff;

// Means [base + index * scale + disp], or byte disp of the constants when in_pool is set.
struct Address {
  uint8_t base = rax;
  uint8_t index = kNoIndex;
  uint8_t scale = 1;  // 1, 2 or 4
  bool in_pool = false;
  int32_t disp = 0;
};
inline Address at(Gpr base, int32_t disp = 0) { return {base, kNoIndex, 1, false, disp}; }
inline Address at(Gpr base, Gpr index, uint8_t scale, int32_t disp) { return {base, index, scale, false, disp}; }

inline constexpr int kNoImmediate = -1;

struct EvexFlags {
  uint8_t mask = 0;        // number of the k register; 0 for none
  bool zero = false;       // set the lanes that the mask leaves out to 0
  bool broadcast = false;  // the memory operand is one float
  uint8_t memory = 64;     // bytes of the memory operand
};

class Assembler {
 public:
  int32_t here() const { return static_cast<int32_t>(bytes_.size()); }

  // ---- general registers, 64 bits -----------------------------------------------------------------------------------
  void push(Gpr r) {
    if (r >= r8) byte(0x41);
    byte(0x50 | (r & 7));
  }
  void pop(Gpr r) {
    if (r >= r8) byte(0x41);
    byte(0x58 | (r & 7));
  }
  void mov(Gpr to, Gpr from) { between(0x8b, to, from); }
  void sub(Gpr to, Gpr from) { between(0x2b, to, from); }
  void cmp(Gpr a, Gpr b) { between(0x3b, a, b); }
  void load(Gpr to, const Address& from) { with_memory(0x8b, to, from); }
  void lea(Gpr to, const Address& from) { with_memory(0x8d, to, from); }
  void add(Gpr r, int32_t v) { with_immediate(0, r, v); }
  void sub(Gpr r, int32_t v) { with_immediate(5, r, v); }
  void align_down(Gpr r, int32_t unit) { with_immediate(4, r, -unit); }  // the instruction `and`
  void zero(Gpr r) {  // the instruction `xor`, of the 32-bit register
    if (r >= r8) byte(0x45);
    byte(0x33);
    registers(r, r);
  }
  void ret() { byte(0xc3); }
  // to = the low `index` bits of a 32-bit word in memory (BMI2). `to` and `index` are registers below r8.
  void bzhi32(Gpr to, const Address& from, Gpr index) { vex(bzhi, to, index, from, kNoImmediate, false); }

  enum Condition : uint8_t { always = 0, equal = 0x84, less = 0x8c, less_equal = 0x8e };
  // A jump whose target is set later; returns what patch() needs.
  int32_t jump(Condition c) {
    if (c == always)
      byte(0xe9);
    else
      byte(0x0f), byte(c);
    word32(0);
    return here();
  }
  void patch(int32_t jump, int32_t target) { set32(jump - 4, target - jump); }
  void jump_back(Condition c, int32_t target) { patch(jump(c), target); }

  // Pads the code to the next cache line and jumps over the padding. A short loop that does not begin at a line is
  // slower.
  void align() {
    if (bytes_.size() % kLine == 0) return;
    const int32_t over = jump(always);
    fill();
    patch(over, here());
  }

  // ---- vectors: reg = op(v, rm), v being 0 where there is no such operand
  // ----------------------------------------------
  void vex(Opcode op, int reg, int v, int rm, int immediate = kNoImmediate, bool wide = true) {
    vex_prefix(wide, op, reg, v, 0, rm >> 3);
    registers(reg, rm);
    end(immediate);
  }
  void vex(Opcode op, int reg, int v, const Address& m, int immediate = kNoImmediate, bool wide = true) {
    vex_prefix(wide, op, reg, v, has_index(m) ? m.index >> 3 : 0, m.in_pool ? 0 : m.base >> 3);
    memory(reg, m, 1, immediate);
    end(immediate);
  }
  void evex(Opcode op, int reg, int v, int rm, EvexFlags f = {}, int immediate = kNoImmediate) {
    evex_prefix(op, reg, v, rm >> 4 & 1, rm >> 3 & 1, f);
    registers(reg, rm);
    end(immediate);
  }
  void evex(Opcode op, int reg, int v, const Address& m, EvexFlags f = {}, int immediate = kNoImmediate) {
    evex_prefix(op, reg, v, has_index(m) ? m.index >> 3 : 0, m.in_pool ? 0 : m.base >> 3, f);
    memory(reg, m, f.broadcast ? 4 : f.memory, immediate);
    end(immediate);
  }
  void vzeroupper() { byte(0xc5), byte(0xf8), byte(0x77); }
  void kortest16(int a, int b) { vex(kortestw, a, 0, b, kNoImmediate, false); }  // `equal` then means that both are 0
  void kmov16(int k, Gpr from) { vex(kmovw, k, 0, from, kNoImmediate, false); }
  void vmov32(int to, Gpr from) { vex(vmovd, to, 0, from, kNoImmediate, false); }

  // ---- constants. They are kept in units of `copies` words; all units of one assembler have the same size
  // -----------------
  Address constant(uint32_t bits, int copies) {
    const auto n = static_cast<size_t>(copies);
    for (size_t i = 0; i + n <= pool_.size(); i += n)
      if (pool_[i] == bits && pool_[i + n - 1] == bits) return pool_address(i);
    pool_.insert(pool_.end(), n, bits);
    return pool_address(pool_.size() - n);
  }
  // The lane numbers 0 .. 7 as a constant.
  Address lane_numbers() {
    constexpr size_t n = 8;
    for (size_t i = 0; i + n <= pool_.size(); i += n)
      if (pool_[i] == 0 && pool_[i + 1] == 1) return pool_address(i);
    for (uint32_t lane = 0; lane < n; ++lane) pool_.push_back(lane);
    return pool_address(pool_.size() - n);
  }

  // Returns the code with its constants, which are aligned to 64 bytes. Nothing may be appended afterwards.
  std::vector<uint8_t> finish() {
    fill();
    const int32_t pool = here();
    for (const PoolUse& u : pool_uses_) set32(u.at, pool + get32(u.at) - u.next);
    const size_t size = pool_.size() * 4;
    bytes_.resize(bytes_.size() + size);
    if (size) std::memcpy(&bytes_[static_cast<size_t>(pool)], pool_.data(), size);
    return std::move(bytes_);
  }

 private:
  struct PoolUse {
    int32_t at, next;  // offset of the displacement, and of the end of its instruction
  };

  static constexpr size_t kLine = 64;  // bytes
  void fill() {
    constexpr int kBreakpoint = 0xcc;  // fills bytes that are never reached
    while (bytes_.size() % kLine) byte(kBreakpoint);
  }
  void byte(int b) { bytes_.push_back(static_cast<uint8_t>(b)); }
  void word32(int32_t v) {
    const size_t at = bytes_.size();
    bytes_.resize(at + 4);
    std::memcpy(&bytes_[at], &v, 4);
  }
  int32_t get32(int32_t at) const {
    int32_t v;
    std::memcpy(&v, &bytes_[static_cast<size_t>(at)], 4);
    return v;
  }
  void set32(int32_t at, int32_t v) { std::memcpy(&bytes_[static_cast<size_t>(at)], &v, 4); }
  void end(int immediate) {
    if (immediate != kNoImmediate) byte(immediate);
  }

  static bool has_index(const Address& m) { return !m.in_pool && m.index != kNoIndex; }
  static Address pool_address(size_t word) { return {rax, kNoIndex, 1, true, static_cast<int32_t>(word * 4)}; }

  void between(int opcode, int reg, int rm) {
    byte(0x48 | (reg >> 3) << 2 | rm >> 3);
    byte(opcode);
    registers(reg, rm);
  }
  void with_memory(int opcode, int reg, const Address& m) {
    byte(0x48 | (reg >> 3) << 2 | (has_index(m) ? m.index >> 3 : 0) << 1 | (m.in_pool ? 0 : m.base >> 3));
    byte(opcode);
    memory(reg, m, 1, kNoImmediate);
  }
  void with_immediate(int extension, Gpr r, int32_t v) {
    byte(0x48 | r >> 3);
    byte(0x81);
    registers(extension, r);
    word32(v);
  }

  void vex_prefix(bool wide, Opcode op, int reg, int v, int x, int b) {
    const int tail = (~v & 15) << 3 | (wide ? 4 : 0) | op.prefix;
    if (op.map == Opcode::of0f && !x && !b) {
      byte(0xc5);
      byte((reg & 8 ? 0 : 0x80) | tail);
    } else {
      byte(0xc4);
      byte((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | op.map);
      byte(tail);
    }
    byte(op.byte);
  }

  void evex_prefix(Opcode op, int reg, int v, int x, int b, EvexFlags f) {
    byte(0x62);
    byte((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | (reg & 16 ? 0 : 0x10) | op.map);
    byte((~v & 15) << 3 | 4 | op.prefix);
    byte((f.zero ? 0x80 : 0) | 0x40 | (f.broadcast ? 0x10 : 0) | (v & 16 ? 0 : 8) | f.mask);
    byte(op.byte);
  }

  // ModRM of two registers.
  void registers(int reg, int rm) { byte(0xc0 | (reg & 7) << 3 | (rm & 7)); }

  // Appends ModRM, SIB and displacement. A displacement of one byte counts `unit` bytes.
  void memory(int reg, const Address& m, int unit, int immediate) {
    const int field = (reg & 7) << 3;
    if (m.in_pool) {
      byte(field | 5);
      pool_uses_.push_back({here(), here() + 4 + (immediate == kNoImmediate ? 0 : 1)});
      word32(m.disp);
      return;
    }
    const int32_t small = m.disp / unit;
    const bool fits = m.disp % unit == 0 && small >= -128 && small <= 127;
    const int mod = m.disp == 0 && (m.base & 7) != 5 ? 0 : fits ? 1 : 2;
    if (m.index != kNoIndex || (m.base & 7) == 4) {
      byte(mod << 6 | field | 4);
      const int scale = m.scale == 4 ? 2 : m.scale == 2 ? 1 : 0;
      byte(scale << 6 | (m.index != kNoIndex ? m.index & 7 : 4) << 3 | (m.base & 7));
    } else {
      byte(mod << 6 | field | (m.base & 7));
    }
    if (mod == 1) byte(small);
    if (mod == 2) word32(m.disp);
  }

  std::vector<uint8_t> bytes_;
  std::vector<uint32_t> pool_;
  std::vector<PoolUse> pool_uses_;
};

}  // namespace nos::cpu::native::x86
