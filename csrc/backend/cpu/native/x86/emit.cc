#include "emit.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

#include "../graph.h"

namespace nos::cpu::native::x86 {
namespace {

constexpr Gpr kSlotRegisters[] = {r8, r9, r10, r11, rdi, rbx, r12, r13, r14, r15};
static_assert(std::size(kSlotRegisters) >= kMaxSlots);
constexpr size_t kFreeRegisters = 5;  // the first of these; a loop must save the others before it uses them
constexpr int kFrameAlignment = 64;   // bytes

}  // namespace

void LoopEmitter::absent(const RegisterInstr& i) {
  throw std::logic_error("this instruction set has no code for vector op " + std::string(info(i.op).name));
}

// The result replaces one of the sources, so one of them must be in dst.
void LoopEmitter::fma(const FmaForms& form, RegisterInstr i) {
  if (i.src[0] == kMemory || (i.src[1] != kMemory && i.dst == i.src[1])) std::swap(i.src[0], i.src[1]);
  const int a = i.src[0], b = i.src[1], c = i.src[2];
  if (i.dst == c) return put(form.replaces_addend, i.dst, a, i, 1);
  if (c == kMemory) {
    if (i.dst != a) move(i.dst, a);
    return put(form.replaces_other_factor, i.dst, b, i, 2);
  }
  if (i.dst == a) return put(form.replaces_factor, i.dst, c, i, 1);
  move(i.dst, c);
  put(form.replaces_addend, i.dst, a, i, 1);
}

Address LoopEmitter::address(const Home& home) const {
  const auto index = static_cast<int32_t>(home.index);
  switch (home.kind) {
    case Home::slot:
      return at(slot_register_[home.index], rax, 4, 0);
    case Home::slot_f16:
    case Home::slot_bf16:
      return at(slot_register_[home.index], rax, 2, 0);
    case Home::slot_i8:
    case Home::slot_u8:
      return at(slot_register_[home.index], rax, 1, 0);
    case Home::scratch:
      return at(rsi, rax, 4, index * kScratchStride);
    case Home::scalar:
      return at(rdx, index * 4);
    case Home::table:
      return at(rdx, (first_table_ + index * kTableLanes) * 4);
    case Home::spill:
      return at(rsp, index * vector_bytes());
    case Home::computed:
    case Home::constant:  // constants are the assembler's
      break;
  }
  throw std::logic_error("a value without an address");
}

Address LoopEmitter::address_of_scale(const Home& home) const {
  return at(rsi, scale_block_, 1, static_cast<int32_t>(home.scales) * kScratchStride);
}

void LoopEmitter::turn(const RegisterLoop& loop) {
  if (decodes_) {
    out_.mov(scale_block_, rax);
    out_.align_down(scale_block_, kScaleBlock);
  }
  for (const RegisterInstr& i : loop.code) instruction(i);
}

void LoopEmitter::enter() {
  if (frame_vectors_) {
    out_.push(rbp);
    out_.mov(rbp, rsp);
  }
  for (Gpr r : saved_) out_.push(r);
  if (frame_vectors_) {
    out_.sub(rsp, frame_vectors_ * vector_bytes());
    out_.align_down(rsp, kFrameAlignment);
  }
}

void LoopEmitter::leave() {
  if (frame_vectors_) out_.lea(rsp, at(rbp, -8 * static_cast<int32_t>(saved_.size())));
  for (size_t i = saved_.size(); i-- > 0;) out_.pop(saved_[i]);
  if (frame_vectors_) out_.pop(rbp);
  out_.vzeroupper();
  out_.ret();
}

// The pointer whose register is rdi is loaded last: until then rdi points to the array of all pointers.
void LoopEmitter::load_slots(uint32_t used) {
  int last = -1;
  for (int s = 0; s < kMaxSlots; ++s)
    if (used >> s & 1) {
      if (slot_register_[s] == rdi)
        last = s;
      else
        out_.load(slot_register_[s], at(rdi, 8 * s));
    }
  if (last >= 0) out_.load(rdi, at(rdi, 8 * last));
}

void LoopEmitter::emit(const RegisterLoop& loop) {
  uint32_t used = 0;  // bit s: slot s occurs
  for (const RegisterInstr& i : loop.code) {
    if (i.memory.in_tensor()) used |= 1u << i.memory.index;
    decodes_ |= i.memory.is_code();
  }
  frame_vectors_ = loop.spills;
  plan_frame(loop);

  size_t next = 0;
  const auto take = [&] {
    if (next >= kFreeRegisters) saved_.push_back(kSlotRegisters[next]);
    return kSlotRegisters[next++];
  };
  if (decodes_) scale_block_ = take();
  for (int s = 0; s < kMaxSlots; ++s)
    if (used >> s & 1) slot_register_[s] = take();
  enter();
  load_slots(used);
  fill_frame();
  for (const RegisterInstr& i : loop.hoisted) instruction(i);

  out_.zero(rax);
  out_.sub(rcx, lanes_);
  const int32_t to_rest = out_.jump(Assembler::less);
  out_.align();
  const int32_t first = out_.here();
  turn(loop);
  out_.add(rax, lanes_);
  out_.cmp(rax, rcx);
  out_.jump_back(Assembler::less_equal, first);

  out_.patch(to_rest, out_.here());
  out_.add(rcx, lanes_);
  out_.sub(rcx, rax);
  const int32_t to_end = out_.jump(Assembler::less_equal);
  masked_ = true;
  make_mask();
  turn(loop);
  masked_ = false;
  out_.patch(to_end, out_.here());
  leave();
}

void emit(Assembler& out, const RegisterLoop& loop, Target target, int first_table) {
  switch (target) {
    case Target::avx2:
      return emit_avx2(out, loop, first_table);
    case Target::avx512:
      return emit_avx512(out, loop, first_table);
  }
}

}  // namespace nos::cpu::native::x86
