// Owns the machine code of one fused loop: the frame around a body, and the interface that the two instruction sets
// fill.
//
//   void loop(char* const* slots, float* scratch, const float* scalars, int64_t n)
//
//   rdi slots, later one of them   rsi scratch   rdx scalar row   rcx n, later limits   rax element   rbp frame
//   r8 .. r11, rdi, rbx, r12 .. r15: pointers of the slots that occur, at most 10
//
// The main loop does `unroll` vectors per turn, the second loop the rest one by one under a mask, so that no byte
// beyond element n of a tensor is touched. Scratch arrays are padded by a vector instead.
#pragma once
#include <vector>

#include "assembler.h"
#include "vcode.h"

namespace nos::cpu::native {

inline constexpr int kMaxBlock = 512;                      // elements of a scratch array
inline constexpr int kScratchStride = kMaxBlock * 4 + 64;  // bytes
inline constexpr int kBoundsOnStack = -8;                  // n, below rsp: the red zone of the System V ABI

class LoopEmitter {
 public:
  // lanes: elements of a vector. first_table: place of table 0 in the scalar row, in floats.
  LoopEmitter(Assembler& out, std::vector<uint32_t>& pool, int lanes, int first_table)
      : out_(out), pool_(pool), lanes_(lanes), first_table_(first_table) {}
  virtual ~LoopEmitter() = default;
  void emit(const Body& body);

 protected:
  virtual void begin(const Body& body) = 0;  // chooses what else the frame holds
  virtual void before_loop() {}              // fills it
  virtual void make_mask() = 0;              // of the rcx < 64 elements that are left
  virtual void instruction(const MInstr& i) = 0;

  Address address(const Home& home) const;  // of the vector number `vector_` of this turn
  // Place in the pool, in bytes, of `copies` words of these bits, or of the numbers 0 .. 7. A pool holds units of one
  // size.
  int32_t pool_word(uint32_t bits, int copies);
  int32_t pool_lanes();
  int vector_bytes() const { return lanes_ * 4; }
  int frame_vectors_ = 0;
  bool masked_ = false;

  Assembler& out_;

 private:
  void enter();
  void leave();
  void code(const Body& body);

  std::vector<uint32_t>& pool_;
  const int lanes_, first_table_;
  int vector_ = 0;
  Gpr slot_register_[16] = {};
  std::vector<Gpr> saved_;
};

// One function for each instruction set: registers it may allocate, and the code of a body.
inline constexpr int kRegistersAvx512 = 30, kRegistersAvx2 = 13;
void emit_avx512(Assembler& out, std::vector<uint32_t>& pool, const Body& body, int first_table);
void emit_avx2(Assembler& out, std::vector<uint32_t>& pool, const Body& body, int first_table);

}  // namespace nos::cpu::native
