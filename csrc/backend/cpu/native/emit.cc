#include "emit.h"

#include <algorithm>

#include "graph.h"

namespace nos::cpu::native {
namespace {

constexpr Gpr kSlotRegisters[] = {r8, r9, r10, r11, rdi, rbx, r12, r13, r14, r15};
constexpr size_t kFreeRegisters = 5;  // of these, the rest must be saved
constexpr int kFrameAlignment = 64;   // bytes

// Vectors per turn: short bodies gain from fewer jumps, long ones only grow.
int unroll_of(const Body& body) { return body.code.size() <= 16 ? 4 : body.code.size() <= 32 ? 2 : 1; }

}  // namespace

int32_t LoopEmitter::pool_word(uint32_t bits, int copies) {
  const auto n = static_cast<size_t>(copies);
  for (size_t i = 0; i + n <= pool_.size(); i += n)
    if (pool_[i] == bits && pool_[i + n - 1] == bits) return static_cast<int32_t>(i * 4);
  pool_.insert(pool_.end(), n, bits);
  return static_cast<int32_t>((pool_.size() - n) * 4);
}

int32_t LoopEmitter::pool_lanes() {
  constexpr size_t n = 8;
  for (size_t i = 0; i + n <= pool_.size(); i += n)
    if (pool_[i] == 0 && pool_[i + 1] == 1) return static_cast<int32_t>(i * 4);
  for (uint32_t lane = 0; lane < n; ++lane) pool_.push_back(lane);
  return static_cast<int32_t>((pool_.size() - n) * 4);
}

Address LoopEmitter::address(const Home& home) const {
  const int32_t ahead = vector_ * vector_bytes();
  const auto index = static_cast<int32_t>(home.index);
  switch (home.kind) {
    case Home::slot:
      return {slot_register_[home.index], rax, 4, false, ahead};
    case Home::slot_f16:
    case Home::slot_bf16:
      return {slot_register_[home.index], rax, 2, false, ahead / 2};
    case Home::scratch:
      return {rsi, rax, 4, false, index * kScratchStride + ahead};
    case Home::scalar:
      return {rdx, kNoIndex, 1, false, index * 4};
    case Home::table:
      return {rdx, kNoIndex, 1, false, (first_table_ + index * kTableLanes) * 4};
    case Home::spill:
      return {rsp, kNoIndex, 1, false, index * vector_bytes()};
    case Home::computed:
    case Home::constant:  // in the pool, not here
      break;
  }
  return {};
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
  if (frame_vectors_) out_.lea(rsp, {rbp, kNoIndex, 1, false, -8 * static_cast<int32_t>(saved_.size())});
  for (size_t i = saved_.size(); i-- > 0;) out_.pop(saved_[i]);
  if (frame_vectors_) out_.pop(rbp);
  out_.vzeroupper();
  out_.ret();
}

void LoopEmitter::code(const Body& body) {
  for (const MInstr& i : body.code) instruction(i);
}

void LoopEmitter::emit(const Body& body) {
  uint32_t used = 0;
  for (const MInstr& i : body.code)
    if (i.memory.in_tensor()) used |= 1u << i.memory.index;
  frame_vectors_ = body.spills;
  begin(body);

  size_t next = 0;
  for (uint32_t s = 0; s < 16; ++s)
    if (used >> s & 1) {
      if (next >= kFreeRegisters) saved_.push_back(kSlotRegisters[next]);
      slot_register_[s] = kSlotRegisters[next++];
    }
  enter();
  int last = -1;  // the slot whose pointer replaces that to the slots
  for (int s = 0; s < 16; ++s)
    if (used >> s & 1) {
      if (slot_register_[s] == rdi)
        last = s;
      else
        out_.load(slot_register_[s], {rdi, kNoIndex, 1, false, 8 * s});
    }
  if (last >= 0) out_.load(rdi, {rdi, kNoIndex, 1, false, 8 * last});
  before_loop();
  for (const MInstr& i : body.hoisted) instruction(i);

  const int unroll = unroll_of(body);
  const Address bound{rsp, kNoIndex, 1, false, kBoundsOnStack};
  out_.store(bound, rcx);
  out_.zero(rax);
  out_.sub(rcx, lanes_ * unroll);
  const int32_t to_rest = out_.jump(Assembler::less);
  const int32_t loop = out_.here();
  for (vector_ = 0; vector_ < unroll; ++vector_) code(body);
  out_.add(rax, lanes_ * unroll);
  out_.cmp(rax, rcx);
  out_.jump_back(Assembler::less_equal, loop);

  vector_ = 0;
  const int32_t rest = out_.here();
  out_.patch(to_rest, rest);
  out_.load(rcx, bound);
  out_.sub(rcx, rax);
  const int32_t to_end = out_.jump(Assembler::less_equal);
  masked_ = true;
  make_mask();
  code(body);
  masked_ = false;
  out_.add(rax, lanes_);
  out_.jump_back(Assembler::always, rest);
  out_.patch(to_end, out_.here());
  leave();
}

}  // namespace nos::cpu::native
