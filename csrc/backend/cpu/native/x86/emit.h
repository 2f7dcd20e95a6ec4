// Owns the machine code of one fused loop: the frame around its body, and the interface that the two instruction sets
// fill.
//
//   void loop(char* const* slots, float* scratch, const float* scalars, int64_t n)
//
//   rdi slots, later one of them   rsi scratch   rdx scalar row   rcx n, later a limit, then what is left
//   rax element   rbp frame
//   r8 .. r11, rdi, rbx, r12 .. r15: pointers of the slots that occur, at most 10
//
// The loop does one vector per turn. What is left, less than a vector, is done once more under a mask, so that no byte
// beyond element n of a tensor is touched. Scratch arrays are padded by a vector instead. Several vectors per turn gain
// nothing (docs/native.md).
#pragma once
#include <vector>

#include "../../../../plan/plan.h"
#include "../loop.h"
#include "assembler.h"

namespace nos::cpu::native::x86 {

class LoopEmitter {
 public:
  // lanes: elements of a vector. first_table: place of table 0 in the scalar row, in floats.
  LoopEmitter(Assembler& out, int lanes, int first_table) : out_(out), lanes_(lanes), first_table_(first_table) {}
  virtual ~LoopEmitter() = default;
  void emit(const RegisterLoop& loop);

 protected:
  virtual void plan_frame(const RegisterLoop&) {}  // adds to frame_vectors_ what else the frame holds
  virtual void fill_frame() {}
  virtual void make_mask() = 0;  // of the rcx elements that are left
  virtual void instruction(const RegisterInstr& i) = 0;
  virtual void move(int to, int from) = 0;
  // reg = op(v, source k of i), the source being a register or the memory operand of i.
  virtual void put(Opcode op, int reg, int v, const RegisterInstr& i, int k, int immediate = kNoImmediate) = 0;

  // ---- what rows of vops.def say
  void unary(Opcode op, const RegisterInstr& i, int immediate = kNoImmediate) { put(op, i.dst, 0, i, 0, immediate); }
  void binary(Opcode op, const RegisterInstr& i) { put(op, i.dst, i.src[0], i, 1); }
  void fma(const FmaForms& form, RegisterInstr i);
  [[noreturn]] static void absent(const RegisterInstr& i);

  Address address(const Home& home) const;  // of this turn's vector
  int vector_bytes() const { return lanes_ * 4; }

  Assembler& out_;
  int frame_vectors_ = 0;
  bool masked_ = false;  // the code that is written works on the elements that are left

 private:
  void enter();
  void leave();
  void load_slots(uint32_t used);

  const int lanes_, first_table_;
  Gpr slot_register_[kMaxSlots] = {};
  std::vector<Gpr> saved_;
};

// Registers 0 .. n - 1 may hold values; the emitter needs the others for itself.
constexpr int registers_of(Target target) { return target == Target::avx512 ? 30 : 13; }

// Appends the code of a loop whose registers are those of the target.
void emit(Assembler& out, const RegisterLoop& loop, Target target, int first_table);
void emit_avx2(Assembler& out, const RegisterLoop& loop, int first_table);
void emit_avx512(Assembler& out, const RegisterLoop& loop, int first_table);

}  // namespace nos::cpu::native::x86
