// Owns Assembler: x86-64 machine code into a byte buffer. Only what the loops of emit.cc need.
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

namespace nos::cpu::native {

enum Gpr : uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
inline constexpr uint8_t kNoIndex = 0xff;

// [base + index * scale + disp], or [rip + distance to pool + disp] when pool is set.
struct Address {
  uint8_t base = rax;
  uint8_t index = kNoIndex;
  uint8_t scale = 1;  // 1, 2, 4
  bool pool = false;
  int32_t disp = 0;
};

// Opcode of a vector instruction: map 1 = 0F, 2 = 0F38, 3 = 0F3A; pp 0 = none, 1 = 66, 2 = F3.
struct VecOp {
  uint8_t map, pp, byte;
};

struct EvexFlags {
  uint8_t mask = 0;        // k register, 0: none
  bool zero = false;       // zero the lanes that the mask leaves out
  bool broadcast = false;  // memory operand is one float
  uint8_t memory = 64;     // bytes of the memory operand
};

class Assembler {
 public:
  std::vector<uint8_t> bytes;

  void byte(int b) { bytes.push_back(static_cast<uint8_t>(b)); }
  void word32(int32_t v) {
    const size_t at = bytes.size();
    bytes.resize(at + 4);
    std::memcpy(&bytes[at], &v, 4);
  }
  int32_t here() const { return static_cast<int32_t>(bytes.size()); }

  // ---- general registers, 64 bits -----------------------------------------------------------------------------------
  void push(Gpr r) {
    if (r >= r8) byte(0x41);
    byte(0x50 | (r & 7));
  }
  void pop(Gpr r) {
    if (r >= r8) byte(0x41);
    byte(0x58 | (r & 7));
  }
  void mov(Gpr to, Gpr from) {
    rex_rr(to, from);
    byte(0x8b);
    byte(0xc0 | (to & 7) << 3 | (from & 7));
  }
  void load(Gpr to, const Address& from) { general(0x8b, to, from); }
  void store(const Address& to, Gpr from) { general(0x89, from, to); }
  void lea(Gpr to, const Address& from) { general(0x8d, to, from); }
  void sub(Gpr to, Gpr from) {
    rex_rr(to, from);
    byte(0x2b);
    byte(0xc0 | (to & 7) << 3 | (from & 7));
  }
  void cmp(Gpr a, Gpr b) {
    rex_rr(a, b);
    byte(0x3b);
    byte(0xc0 | (a & 7) << 3 | (b & 7));
  }
  void add(Gpr r, int32_t v) { immediate(0, r, v); }
  void sub(Gpr r, int32_t v) { immediate(5, r, v); }
  void align_down(Gpr r, int32_t unit) { immediate(4, r, -unit); }
  void zero(Gpr r) {
    if (r >= r8) byte(0x45);
    byte(0x33);
    byte(0xc0 | (r & 7) << 3 | (r & 7));
  }
  void ret() { byte(0xc3); }
  // The low `index` bits of a 32-bit word in memory (BMI2); to and index below r8.
  void bzhi32(Gpr to, const Address& from, Gpr index) { vex(false, {2, 0, 0xf5}, to, index, from); }

  enum Condition : uint8_t { always = 0, equal = 0x84, less = 0x8c, less_equal = 0x8e };
  // A jump whose target is set later; returns its place for patch().
  int32_t jump(Condition c) {
    if (c == always)
      byte(0xe9);
    else
      byte(0x0f), byte(c);
    word32(0);
    return here();
  }
  void patch(int32_t place, int32_t target) { set32(place - 4, target - place); }
  void jump_back(Condition c, int32_t target) { patch(jump(c), target); }

  // ---- vectors ------------------------------------------------------------------------------------------------------
  void vex(bool wide, VecOp op, int reg, int v, int rm) {
    vex_prefix(wide, op, reg, v, 0, rm >> 3);
    byte(0xc0 | (reg & 7) << 3 | (rm & 7));
  }
  void vex(bool wide, VecOp op, int reg, int v, const Address& m, int immediate_bytes = 0) {
    vex_prefix(wide, op, reg, v, has_index(m) ? m.index >> 3 : 0, m.pool ? 0 : m.base >> 3);
    modrm(reg, m, 1, immediate_bytes);
  }
  void evex(VecOp op, int reg, int v, int rm, EvexFlags f = {}) {
    evex_prefix(op, reg, v, rm >> 4 & 1, rm >> 3 & 1, f);
    byte(0xc0 | (reg & 7) << 3 | (rm & 7));
  }
  void evex(VecOp op, int reg, int v, const Address& m, EvexFlags f = {}, int immediate_bytes = 0) {
    evex_prefix(op, reg, v, has_index(m) ? m.index >> 3 : 0, m.pool ? 0 : m.base >> 3, f);
    modrm(reg, m, f.broadcast ? 4 : f.memory, immediate_bytes);
  }
  void vzeroupper() { byte(0xc5), byte(0xf8), byte(0x77); }
  void kortestw(int a, int b) { vex(false, {1, 0, 0x98}, a, 0, b); }  // `equal` afterwards: both are empty
  void kmovw(int k, Gpr from) { vex(false, {1, 0, 0x92}, k, 0, from); }

  // Puts the constants after the code, aligned to 64 bytes, and completes the addresses that point there.
  void place_pool(const std::vector<uint32_t>& words) {
    while (bytes.size() % 64) byte(0xcc);
    const int32_t pool = here();
    for (const PoolUse& u : pool_uses_) set32(u.at, pool + get32(u.at) - u.next);
    const size_t size = words.size() * 4;
    bytes.resize(bytes.size() + size);
    if (size) std::memcpy(&bytes[static_cast<size_t>(pool)], words.data(), size);
    pool_uses_.clear();
  }

 private:
  struct PoolUse {
    int32_t at, next;  // place of the displacement, end of the instruction
  };

  static bool has_index(const Address& m) { return !m.pool && m.index != kNoIndex; }
  int32_t get32(int32_t at) const {
    int32_t v;
    std::memcpy(&v, &bytes[static_cast<size_t>(at)], 4);
    return v;
  }
  void set32(int32_t at, int32_t v) { std::memcpy(&bytes[static_cast<size_t>(at)], &v, 4); }

  void rex_rr(int reg, int rm) { byte(0x48 | (reg >> 3) << 2 | rm >> 3); }
  void general(int opcode, int reg, const Address& m) {
    byte(0x48 | (reg >> 3) << 2 | (has_index(m) ? m.index >> 3 : 0) << 1 | (m.pool ? 0 : m.base >> 3));
    byte(opcode);
    modrm(reg, m, 1, 0);
  }
  void immediate(int extension, Gpr r, int32_t v) {
    byte(0x48 | r >> 3);
    byte(0x81);
    byte(0xc0 | extension << 3 | (r & 7));
    word32(v);
  }

  void vex_prefix(bool wide, VecOp op, int reg, int v, int x, int b) {
    const int tail = (~v & 15) << 3 | (wide ? 4 : 0) | op.pp;
    if (op.map == 1 && !x && !b) {
      byte(0xc5);
      byte((reg & 8 ? 0 : 0x80) | tail);
    } else {
      byte(0xc4);
      byte((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | op.map);
      byte(tail);
    }
    byte(op.byte);
  }

  void evex_prefix(VecOp op, int reg, int v, int x, int b, EvexFlags f) {
    byte(0x62);
    byte((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | (reg & 16 ? 0 : 0x10) | op.map);
    byte((~v & 15) << 3 | 4 | op.pp);
    byte((f.zero ? 0x80 : 0) | 0x40 | (f.broadcast ? 0x10 : 0) | (v & 16 ? 0 : 8) | f.mask);
    byte(op.byte);
  }

  // ModRM, SIB and displacement. unit: what a displacement of one byte counts.
  void modrm(int reg, const Address& m, int unit, int immediate_bytes) {
    const int field = (reg & 7) << 3;
    if (m.pool) {
      byte(field | 5);
      pool_uses_.push_back({here(), here() + 4 + immediate_bytes});
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

  std::vector<PoolUse> pool_uses_;
};

}  // namespace nos::cpu::native
