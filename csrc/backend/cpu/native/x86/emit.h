// Owns the machine code of one fused loop: the frame around its body, and the interface that the emitters of the two
// instruction sets implement.
//
//   void loop(char* const* slots, float* scratch, const float* scalars, int64_t n)
//
//   rdi slots, later one of them   rsi scratch   rdx scalar row   rcx n, later a limit, then what is left
//   rax element   rbp frame
//   r8 .. r11, rdi, rbx, r12 .. r15: pointers of the slots that occur, at most 10; the first one is the block of scales
//   of this turn where the loop decodes
//
// Every turn of the loop computes one vector. The elements that are left, fewer than a vector, take one more turn under
// a mask, so that no byte beyond element n of a tensor is touched. Scratch arrays need no mask, as they are padded by a
// vector. Several vectors per turn gain nothing (docs/native.md).
#pragma once
#include <vector>

#include "../../../../plan/plan.h"
#include "../loop.h"
#include "assembler.h"

namespace nos::cpu::native::x86 {

class LoopEmitter {
 public:
  // `lanes` is the number of elements in a vector; `first_table` is where table 0 begins in the scalar row, in floats.
  LoopEmitter(Assembler& out, int lanes, int first_table) : out_(out), lanes_(lanes), first_table_(first_table) {}
  virtual ~LoopEmitter() = default;
  void emit(const RegisterLoop& loop);

 protected:
  virtual void plan_frame(const RegisterLoop&) {}  // adds to frame_vectors_ what the instruction set needs
  virtual void fill_frame() {}
  virtual void make_mask() = 0;  // for the elements that are left, whose number is in rcx
  virtual void instruction(const RegisterInstr& i) = 0;
  virtual void move(int to, int from) = 0;
  // reg = op(v, source k of i). The source is a register or the memory operand of i.
  virtual void put(Opcode op, int reg, int v, const RegisterInstr& i, int k, int immediate = kNoImmediate) = 0;

  // ---- what the rows of vops.def call
  void unary(Opcode op, const RegisterInstr& i, int immediate = kNoImmediate) { put(op, i.dst, 0, i, 0, immediate); }
  void binary(Opcode op, const RegisterInstr& i) { put(op, i.dst, i.src[0], i, 1); }
  void fma(const FmaForms& form, RegisterInstr i);
  [[noreturn]] static void absent(const RegisterInstr& i);

  Address address(const Home& home) const;           // of the vector that this turn works on
  Address address_of_scale(const Home& home) const;  // of codes, likewise
  int vector_bytes() const { return lanes_ * 4; }

  Assembler& out_;
  int frame_vectors_ = 0;
  bool masked_ = false;  // whether the code being written is for the elements that are left

 private:
  void turn(const RegisterLoop& loop);  // computes one vector
  void enter();
  void leave();
  void load_slots(uint32_t used);

  const int lanes_, first_table_;
  Gpr slot_register_[kMaxSlots] = {};
  bool decodes_ = false;  // whether the loop reads codes
  Gpr scale_block_{};     // then: the first element that shares a scale with those of this turn
  std::vector<Gpr> saved_;
};

// Registers 0 .. n - 1 may hold values; the emitter needs the others for itself.
constexpr int registers_of(Target target) { return target == Target::avx512 ? 30 : 13; }

// Appends the code of a loop whose registers are those of the target.
void emit(Assembler& out, const RegisterLoop& loop, Target target, int first_table);
void emit_avx2(Assembler& out, const RegisterLoop& loop, int first_table);
void emit_avx512(Assembler& out, const RegisterLoop& loop, int first_table);

}  // namespace nos::cpu::native::x86
