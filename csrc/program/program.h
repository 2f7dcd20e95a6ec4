// Owns Program: an update rule that is known to be valid. The only way to get one is Program::parse, so every later
// stage may rely on what verify.cc lists.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "../ops/op.h"
#include "bytecode.h"

namespace nos {

struct Instr {
  Op op;
  Operand a, b, c;
  const Operand& operand(int i) const { return i == 0 ? a : i == 1 ? b : c; }
  int arity() const { return info(op).arity; }
  int site() const { return c.bits; }  // random ops only
};

struct Hyper {
  std::string name;
  bool has_default;
  double value;
};

// Thrown for bytes that are not a valid program. The message says where they are wrong and why.
class BytecodeError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// What later stages derive from a program. It is kept with the program, so that it is made only once. All of it is
// empty at first, and each stage guards what it makes.
namespace cpu {
struct Lowered;
namespace native {
class NativeProgram;
}
}  // namespace cpu
namespace cuda {
struct DeviceCode;
namespace jit {
struct Calls;
}
}  // namespace cuda
namespace bind {
class PlanCache;
struct StateKeys;
}  // namespace bind
class Passes;
struct Kept {
  std::shared_ptr<const Passes> passes, passes_early;
  std::shared_ptr<const cpu::Lowered> cpu_code;
  std::shared_ptr<cpu::native::NativeProgram> cpu_native;
  std::shared_ptr<const cuda::DeviceCode> cuda_code;
  std::shared_ptr<cuda::jit::Calls> cuda_calls;
  std::shared_ptr<bind::PlanCache> plans;
  std::shared_ptr<const bind::StateKeys> state_keys;
};

class Program {
 public:
  static Program parse(std::span<const uint8_t> bytes);  // throws BytecodeError

  const std::string& name() const { return name_; }
  const std::vector<std::string>& states() const { return states_; }
  const std::vector<Hyper>& hypers() const { return hypers_; }
  const std::vector<double>& constants() const { return constants_; }
  const std::vector<Instr>& scalar_code() const { return scalar_code_; }
  const std::vector<Instr>& code() const { return code_; }
  const std::vector<Operand>& outputs() const { return outputs_; }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  // Whether the state is kept as one number per tensor. Its old value is a tensor scalar then, and no per-element one.
  bool is_per_tensor(int state) const { return per_tensor_[static_cast<size_t>(state)]; }
  // Whether there are tensor scalars. Back-ends run the passes of such a program (passes.h) and never the program.
  bool has_tensor_scalars() const { return has_tensor_scalars_; }
  // Whether some of them are over all tensors of a call, so that these cannot be divided into several calls.
  bool has_global_reductions() const { return has_globals_; }

  int num_states() const { return static_cast<int>(states_.size()); }
  // Without reductions, one per instruction comes after the inputs.
  int num_values() const { return num_values_; }
  int first_instr_value() const { return bytecode::kFirstState + num_states(); }
  int first_constant() const { return bytecode::kFirstHyper + static_cast<int>(hypers_.size()); }
  int first_scalar_instr() const { return first_constant() + static_cast<int>(constants_.size()); }
  int num_scalars() const { return first_scalar_instr() + static_cast<int>(scalar_code_.size()); }
  // All that is the same for every element of a tensor: the scalars of a step, then the tensor scalars.
  int num_uniforms() const { return num_scalars() + num_tensor_scalars_; }
  bool uses_total_steps() const { return uses_total_; }
  bool uses_random() const { return uses_random_; }
  int cost() const { return cost_; }  // sum of OpInfo::cost over the per-element code

  // Fills slots[0 .. num_scalars()) with t, T, the hyperparameters (one value each, in order), the constants, and the
  // results of the scalar code. The caller's floating-point environment does not matter.
  void eval_scalars(double step, double total_steps, std::span<const double> hypers, std::span<double> slots) const;

  // Whether an instruction of the code gives a tensor scalar.
  bool is_tensor_instr(const Instr& i) const;

  std::string disassemble() const;  // listing for people and golden tests
  mutable Kept kept;

  // The bytes that decide what the program computes: all of bytes() except the rule's name.
  std::vector<uint8_t> identity() const;

 private:
  friend class Passes;
  Program() = default;
  void verify() const;  // verify.cc
  void count();
  void eval_scalars_here(double step, double total_steps, std::span<const double> hypers,
                         std::span<double> slots) const;

  std::string name_;
  std::vector<std::string> states_;
  std::vector<bool> per_tensor_;  // of each state
  std::vector<Hyper> hypers_;
  std::vector<double> constants_;
  std::vector<Instr> scalar_code_, code_;
  std::vector<Operand> outputs_;
  std::vector<uint8_t> bytes_;
  int num_values_ = 0, num_tensor_scalars_ = 0;
  bool uses_total_ = false, uses_random_ = false, has_tensor_scalars_ = false, has_globals_ = false;
  int cost_ = 0;
};

}  // namespace nos
