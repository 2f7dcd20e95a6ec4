// Owns the interpreter's kernel: the body of one thread, in two phases with a barrier between them. They are templates
// over a context, so that nvcc compiles them for the device and g++ for the host, where tests run every (block, thread)
// pair. A context has thread(), the number of the thread in its block, and threads(), how many the block has; and
// fold<F>(y, to), which has a warp store what fold_lanes makes of the y of its lanes; and with_largest(x, then), which
// calls then with the largest x of the lanes.
//
// A thread holds E elements as E / 4 quads of four neighbours; quad j of thread x starts 4 (x + j * threads) elements
// past the begin of the tile. In a kernel that has reductions (Folds), a warp holds one unit of them (fold.h), so there
// quad j of lane l of warp w starts 4 (64 w + l + 32 j) past it. A kernel that has quantized states (Codes) is one of
// these, as a unit is a block with a scale of its own. Whole tiles that are aligned take wide accesses, and
// all else takes guarded single ones, with the same map of threads to elements. Draws are keyed by elements, so results
// depend on neither.
#pragma once
#include "../../../ops/math.h"
#include "../../../ops/philox.h"
#include "../common/block.h"
#include "../common/memory.h"
#include "../common/unroll.h"
#include "codes.h"
#include "fold.h"
#include "isa.h"

namespace nos::cuda {

// d = s, as an instruction that the compiler may not move. Without it the copies of one case become phi moves before
// the branch. Every instruction then pays for them, and registers spill.
#if defined(__CUDA_ARCH__)
NOS_HD void move(float& d, float s) { asm volatile("mov.b32 %0, %1;" : "=f"(d) : "f"(s)); }
NOS_HD void move(double& d, double s) { asm volatile("mov.b64 %0, %1;" : "=d"(d) : "d"(s)); }
NOS_HD void opaque(int& x) { asm volatile("" : "+r"(x)); }
NOS_HD void opaque(uint32_t& x) { asm volatile("" : "+r"(x)); }
#else
template <class T>
NOS_HD void move(T& d, T s) {
  d = s;
}
NOS_HD void opaque(int&) {}
NOS_HD void opaque(uint32_t&) {}
#endif

// An instruction as threads read it from shared memory. Where it has an immediate, the value is decoded already.
template <class T>
struct Decoded;
template <>
struct Decoded<float> {
  uint32_t op;
  uint32_t bits;  // bits of the immediate, or arg
};
template <>
struct alignas(16) Decoded<double> {
  uint32_t op;
  uint32_t arg;
  double c;
};

NOS_HD void decode(Decoded<float>& d, Ins in, const float* scalars) {
  d.op = in.op & ~kScalarFlag;
  d.bits = in.op & kScalarFlag ? bits_as<uint32_t>(scalars[in.arg]) : in.arg;
}
NOS_HD void decode(Decoded<double>& d, Ins in, const double* scalars) {
  d.op = in.op & ~kScalarFlag;
  d.arg = in.arg;
  d.c = in.op & kScalarFlag ? scalars[in.arg] : 0.0;
}

// Walks through the code. The device uses 32-bit shared addresses for that. Short instructions are loaded one ahead, so
// that the load is over by the time that the instruction before is.
template <class T>
class Fetch {
 public:
#if defined(__CUDA_ARCH__)
  NOS_HD explicit Fetch(const Decoded<T>* code) : at_(static_cast<uint32_t>(__cvta_generic_to_shared(code))) {
    if constexpr (sizeof(T) == 4) load();
  }
  NOS_HD void next(uint32_t& op, uint32_t& arg, float& c) {
    op = op_, arg = arg_;
    c = __uint_as_float(arg);
    load();
  }
  NOS_HD void next(uint32_t& op, uint32_t& arg, double& c) {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(op), "=r"(arg) : "r"(at_));
    asm volatile("ld.shared.f64 %0, [%1];" : "=d"(c) : "r"(at_ + 8));
    at_ += 16;
  }

 private:
  NOS_HD void load() {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(op_), "=r"(arg_) : "r"(at_));
    at_ += 8;
  }

  uint32_t at_, op_, arg_;
#else
  explicit Fetch(const Decoded<T>* code) : at_(code) {}
  void next(uint32_t& op, uint32_t& arg, float& c) {
    op = at_->op, arg = at_->bits, c = bits_as<float>(arg);
    ++at_;
  }
  void next(uint32_t& op, uint32_t& arg, double& c) {
    op = at_->op, arg = at_->arg, c = at_->c;
    ++at_;
  }

 private:
  const Decoded<T>* at_;
#endif
};

// What the threads of a block share, besides the code and the overflow slots.
template <class T>
struct Shared {
  char* data[kSlots];  // at the chunk's first element
  int64_t begin;       // where the chunk begins in its slice
  uint64_t seed;
  T factor;
  int count;  // elements of the chunk
  uint32_t dtypes, aligned, reads, writes, step, index, rounding;
  double* sums;           // of the first reduction, at the chunk's first unit; only where there are reductions
  int64_t next_sum;       // from one reduction's sums to those of the next
  float* scales[kSlots];  // of the slots in codes, at the chunk's first block; only where there may be such
};
static_assert(philox::kRoundingBlock % kFoldUnit == 0, "a warp rounds with one key");

// The dtype of a slot. A kernel without codes reads two bits of it.
template <bool Codes>
NOS_HD uint32_t stored_as(uint32_t dtypes, int slot) {
  return Codes ? any_dtype_of(dtypes, slot) : dtype_of(dtypes, slot);
}

// Phase 1 finds the block's work and decodes its program. `code` has room for length + 2 instructions: there is kEnd,
// and the one behind it is loaded, though not used.
template <class T, bool Folds, bool Codes, class Context>
NOS_HD void set_up(const Context& ctx, const Launch& a, uint32_t block, Shared<T>& sm, Decoded<T>* code) {
  const Work<T> work = work_of<T>(a, block);
  const TensorRec& t = work.tensor;
  const ProgramRec program = a.programs[t.program + work.chunk.slice];
  if (ctx.thread() == 0) {
    sm.begin = work.chunk.begin;
    sm.count = work.count(a.chunk_elements);
    sm.seed = work.row.seed;
    sm.factor = static_cast<T>(work.head.factor);
    sm.dtypes = t.dtypes;
    sm.aligned = t.aligned;
    sm.reads = program.reads;
    sm.writes = program.writes;
    sm.step = work.head.step;
    sm.rounding = work.head.rounding;
    sm.index = t.index;
    if constexpr (Folds) {
      if (!Codes || a.sums) sm.sums = a.sums + work.row.sums + work.chunk.begin / kFoldUnit;
      sm.next_sum = fold_numbers(t.numel);
    }
  }
  for (uint32_t s = ctx.thread(); s < kSlots; s += ctx.threads()) {
    const uint32_t dtype = stored_as<Codes>(t.dtypes, static_cast<int>(s));
    sm.data[s] = work.memory(s, dtype);
    if constexpr (Codes)
      sm.scales[s] = is_code(dtype) ? static_cast<float*>((&t)[1].data[s]) + work.chunk.begin / kFoldUnit : nullptr;
  }
  for (uint32_t i = ctx.thread(); i <= program.length; i += ctx.threads())
    decode(code[i], i < program.length ? a.code[program.first + i] : Ins{kEnd, 0}, work.scalars);
}

// Says which elements of a tile a thread holds.
struct Quads {
  int first;   // where quad 0 begins in the chunk
  int stride;  // from quad to quad
  NOS_HD int at(int e) const { return first + (e >> 2) * stride + (e & 3); }
};

#define NOS_EACH NOS_UNROLL for (int e = 0; e < E; ++e)

// Element i of a slot that may be stored in codes, counted from the chunk's first one.
NOS_HD float load_any(const Shared<float>& sm, int slot, uint32_t dtype, int i) {
  if (!is_code(dtype)) return load1<float, true>(sm.data[slot], dtype, i);
  return number_of(dtype, static_cast<uint8_t>(sm.data[slot][i]), sm.scales[slot][i / kFoldUnit]);
}

// The number of the rule's output that goes into a slot.
NOS_HD uint32_t output_of(int slot) { return slot == 0 ? 0 : static_cast<uint32_t>(slot - 1); }

// Whether results in half precision are rounded stochastically in this slot.
template <class T>
NOS_HD bool is_stochastic(const Shared<T>& sm, int slot) {
  return sm.rounding >> (slot != 0 ? 1 : 0) & 1;
}

// Stores the elements of one slot in half precision. Each is rounded stochastically with random bits of its own.
template <int E>
NOS_HD void store_stochastic(const Shared<float>& sm, int slot, Quads quads, const float (&x)[E]) {
  const bool brain = dtype_of(sm.dtypes, slot) == kBF16;
  auto* to = reinterpret_cast<uint16_t*>(sm.data[slot]);
  NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
    const auto element = static_cast<uint64_t>(sm.begin + quads.first + j * quads.stride);
    const philox::RoundingKey key = philox::rounding_key(sm.seed, sm.step, sm.index, output_of(slot), element);
    NOS_UNROLL for (int e = 4 * j; e < 4 * j + 4; ++e) {
      const uint32_t bits =
          philox::rounding_word(key, static_cast<uint32_t>(element + (e & 3)) % philox::kRoundingBlock);
      if (quads.at(e) < sm.count)
        to[quads.at(e)] = brain ? math::f32_to_bf16_stochastic(x[e], bits) : math::f32_to_f16_stochastic(x[e], bits);
    }
  }
}

// Stores the elements of one slot in codes. A warp holds a block, and its lanes meet here. Elements past the end become
// 0.
template <int E, class Context>
NOS_HD void store_codes(const Context& ctx, const Shared<float>& sm, int slot, Quads quads, float (&x)[E]) {
  const bool is_signed = any_dtype_of(sm.dtypes, slot) == kI8;
  uint32_t mine = 0;
  NOS_EACH {
    if (quads.at(e) >= sm.count) x[e] = 0.0f;
    const uint32_t size = math::size_bits(x[e], is_signed);
    mine = size > mine ? size : mine;
  }
  ctx.with_largest(mine, [&sm, slot, quads, x, is_signed](uint32_t largest) {
    const int32_t largest_code = is_signed ? math::kLargestI8 : math::kLargestU8;
    const float scale = math::scale_of(largest, largest_code);
    const bool has_codes = scale > 0.0f;
    const float inverse = divide(1.0f, has_codes ? scale : 1.0f);
    const auto element = static_cast<uint64_t>(sm.begin + quads.first);
    const philox::RoundingKey key = philox::rounding_key(sm.seed, sm.step, sm.index, output_of(slot), element);
    const auto lane = static_cast<uint32_t>(element) % philox::kRoundingBlock;
    const bool stochastic = is_stochastic(sm, slot);
    if (quads.first % kFoldUnit == 0) sm.scales[slot][quads.first / kFoldUnit] = scale;
    NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
      const int first = quads.first + j * quads.stride, there = sm.count - first;
      uint32_t word = 0;
      NOS_UNROLL for (int e = 0; e < 4; ++e) {
        const float number = has_codes ? x[4 * j + e] : 0.0f;
        const uint32_t draw = philox::rounding_word(key, lane + static_cast<uint32_t>(j * quads.stride + e));
        const float u = stochastic ? philox::rounding_part(draw) : 0.5f;
        const float size = is_signed ? math::abs<float>(number) : number;
        const int32_t code = math::to_code(size, inverse, u, largest_code);
        word |= (static_cast<uint32_t>(is_signed && number < 0.0f ? -code : code) & 0xffu) << 8 * e;
      }
      char* const to = global(sm.data[slot]) + first;
      if (sm.aligned && there >= 4) {
        store_word(to, word);
      } else {
        NOS_UNROLL for (int e = 0; e < 4; ++e) if (e < there) to[e] = static_cast<char>(word >> 8 * e);
      }
    }
  });
}

#if !defined(__CUDACC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wswitch-enum"  // an instruction without a case does not compile, the default aside
#endif

// One reduction of a pass. The first step of the tree is here, where the elements past the end count as 0.
template <Fold F, class T, int E, class Context>
NOS_HD void fold_tile(const Context& ctx, const Shared<T>& sm, uint32_t number, Quads quads, const T (&a)[E],
                      const T (&b)[E]) {
  static_assert(E == kFoldElements);
  Quads mine = quads;
  opaque(mine.first);
  double y[4];
  NOS_UNROLL for (int e = 0; e < 4; ++e) {
    const double low = mine.at(e) < sm.count ? fold_term<F>(a[e], b[e]) : 0.0;
    const double high = mine.at(e + 4) < sm.count ? fold_term<F>(a[e + 4], b[e + 4]) : 0.0;
    y[e] = fold_join<F>(low, high);
  }
  ctx.template fold<F>(y, sm.sums + number * sm.next_sum + mine.first / kFoldUnit);
}

// Element e of overflow slot k is overflow[(k * E + e) * threads]: `overflow` points to the column of this thread.
template <class T, int E, bool Mixed, bool Folds, bool Codes, class Context>
NOS_HD void interpret([[maybe_unused]] const Context& ctx, const Shared<T>& sm, const Decoded<T>* code,
                      T (&r)[kRegs][E], T* overflow, uint32_t threads, Quads quads) {
  T acc[E];
  NOS_EACH acc[e] = T(0);
  Fetch<T> fetch(code);
  NOS_NO_UNROLL for (;;) {
    uint32_t op, arg;
    T c;
    fetch.next(op, arg, c);
    switch (static_cast<Opcode>(op)) {
#define NOS_ON_SLOT(id, n, body) \
  case k_##id##_##n: {           \
    constexpr int S = n;         \
    NOS_EACH { body; }           \
  } break;
#define NOS_ON_SLOTS(id, body) \
  NOS_ON_SLOT(id, 0, body)     \
  NOS_ON_SLOT(id, 1, body)     \
  NOS_ON_SLOT(id, 2, body)     \
  NOS_ON_SLOT(id, 3, body)     \
  NOS_ON_SLOT(id, 4, body)     \
  NOS_ON_SLOT(id, 5, body) NOS_ON_SLOT(id, 6, body) NOS_ON_SLOT(id, 7, body) NOS_ON_SLOT(id, 8, body)
      NOS_ON_SLOTS(ld, move(acc[e], r[S][e]))
      NOS_ON_SLOTS(st, move(r[S][e], acc[e]))
      NOS_ON_SLOTS(mvt, move(r[kT][e], r[S][e]))
      NOS_ON_SLOTS(mvu, move(r[kU][e], r[S][e]))
#define NOS_SLOT(id, value) NOS_ON_SLOTS(id, [[maybe_unused]] const T a = acc[e]; const T s = r[S][e]; acc[e] = (value))
#define NOS_SLOT_MOVE(id)
#define NOS_ONE(id, value)                                 \
  case k1_##id: {                                          \
    NOS_EACH {                                             \
      const T a = acc[e];                                  \
      [[maybe_unused]] const T t = r[kT][e], u = r[kU][e]; \
      move(acc[e], (value));                               \
    }                                                      \
  } break;
#define NOS_MOVE(id)
#define NOS_MOVE_AT(id)
#define NOS_DRAW(id)
// A kernel without reductions leaves, as for what is no instruction. If it went on instead, nvcc's dispatch would be
// twice as long in all cases.
#define NOS_FOLD(id)                                              \
  case k1_##id: {                                                 \
    if constexpr (Folds)                                          \
      fold_tile<Fold::id, T, E>(ctx, sm, arg, quads, acc, r[kT]); \
    else                                                          \
      return;                                                     \
  } break;
#include "isa.def"
#undef NOS_SLOT
#undef NOS_SLOT_MOVE
#undef NOS_ONE
#undef NOS_MOVE
#undef NOS_MOVE_AT
#undef NOS_DRAW
#undef NOS_FOLD
#undef NOS_ON_SLOTS
#undef NOS_ON_SLOT
      case k1_ldc: {
        NOS_EACH move(acc[e], c);
      } break;
      case k1_bct: {
        NOS_EACH move(r[kT][e], c);
      } break;
      case k1_bcu: {
        NOS_EACH move(r[kU][e], c);
      } break;
      case k1_drop:
      case k1_normal: {
        uint32_t site, unused;
        T none;
        fetch.next(site, unused, none);
        NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
          const auto element = static_cast<uint64_t>(sm.begin + quads.first + j * quads.stride);
          const philox::Words w = philox::element_words(sm.seed, sm.step, sm.index, site, element >> 2);
          if (op == k1_drop) {
            NOS_UNROLL for (int e = 0; e < 4; ++e) {
              T& x = acc[4 * j + e];
              move(x, static_cast<T>(philox::uniform(w.w[e])) < c ? T(0) : x);
            }
          } else {
            float z[4];
            philox::normal4(w, z);
            NOS_UNROLL for (int e = 0; e < 4; ++e) move(acc[4 * j + e], static_cast<T>(z[e]) * c);
          }
        }
      } break;
      case k1_ldx: {
        NOS_EACH move(acc[e], overflow[(arg * E + static_cast<uint32_t>(e)) * threads]);
      } break;
      case k1_stx: {
        NOS_EACH overflow[(arg * E + static_cast<uint32_t>(e)) * threads] = acc[e];
      } break;
      case k1_mvtx: {
        NOS_EACH move(r[kT][e], overflow[(arg * E + static_cast<uint32_t>(e)) * threads]);
      } break;
      case k1_mvux: {
        NOS_EACH move(r[kU][e], overflow[(arg * E + static_cast<uint32_t>(e)) * threads]);
      } break;
      case k1_ldm: {
        Quads mine = quads;
        opaque(mine.first);  // otherwise the addresses are computed before the loop and hold registers all the time
        const uint32_t dtype = stored_as<Codes>(sm.dtypes, static_cast<int>(arg));
        NOS_EACH {
          const int i = mine.at(e);
          T x = T(0);
          if (i < sm.count) {
            if constexpr (Codes)
              x = load_any(sm, static_cast<int>(arg), dtype, i);
            else
              x = load1<T, Mixed>(sm.data[arg], dtype, i);
          }
          move(acc[e], x);
        }
      } break;
      case k1_stm: {
        Quads mine = quads;
        opaque(mine.first);
        if constexpr (Codes) {
          if (is_code(any_dtype_of(sm.dtypes, static_cast<int>(arg)))) {
            store_codes<E>(ctx, sm, static_cast<int>(arg), mine, acc);
            break;
          }
        }
        if constexpr (Mixed) {
          if (is_stochastic(sm, static_cast<int>(arg)) && is_half(dtype_of(sm.dtypes, static_cast<int>(arg)))) {
            store_stochastic<E>(sm, static_cast<int>(arg), mine, acc);
            break;
          }
        }
        const uint32_t dtype = dtype_of(sm.dtypes, static_cast<int>(arg));
        NOS_EACH {
          const int i = mine.at(e);
          if (i < sm.count) store1<T, Mixed>(sm.data[arg], dtype, i, acc[e]);
        }
      } break;
      case kEnd:
      default:  // never taken: but with this way out of the loop, nvcc's dispatch is half as long
        return;
    }
  }
}

#if !defined(__CUDACC__)
#pragma GCC diagnostic pop
#endif

// Has the L2 cache fetch the tile that begins at `begin`, if there is one, while this one is computed. A warp speaks
// for one slot.
template <class T, bool Codes, class Context>
NOS_HD void prefetch_tile(const Context& ctx, const Shared<T>& sm, int begin, int tile) {
  const uint32_t slot = ctx.thread() >> 5;
  const int left = sm.count - begin;
  if ((ctx.thread() & 31u) != 0 || left <= 0 || !sm.aligned || slot >= kRegInputs || !(sm.reads >> slot & 1)) return;
  const auto size = static_cast<uint32_t>(size_of_dtype(stored_as<Codes>(sm.dtypes, static_cast<int>(slot))));
  const auto from = reinterpret_cast<uintptr_t>(sm.data[slot]) + static_cast<uint32_t>(begin) * size;
  const auto to = from + static_cast<uint32_t>(left < tile ? left : tile) * size;
  constexpr auto kWhole = ~static_cast<uintptr_t>(15);
  const auto bytes = static_cast<int>((to & kWhole) - (from & kWhole));
  if (bytes > 0) prefetch(reinterpret_cast<const char*>(from & kWhole), bytes);
}

// Phase 2 runs the program over the tiles of the chunk. `overflow` points to the column of this thread.
template <class T, int E, bool Mixed, bool Folds, bool Codes, class Context>
NOS_HD void run(const Context& ctx, const Shared<T>& sm, const Decoded<T>* code, T* overflow) {
  const uint32_t threads = ctx.threads();
  const int tile = static_cast<int>(threads) * E;
  const int stride = Folds ? 4 * 32 : static_cast<int>(4 * threads);
  const int warp_first = static_cast<int>((Folds ? E : 4) * (ctx.thread() & ~31u));
  const int lane_first =
      Folds ? warp_first + static_cast<int>(4 * (ctx.thread() & 31u)) : static_cast<int>(4 * ctx.thread());
  const int count = sm.count;
  const uint32_t reads = sm.reads, writes = sm.writes, known = sm.dtypes;
  // Where there are codes, all that follows from the dtypes would be too much to keep in registers.
  const auto dtypes = [known] {
    uint32_t out = known;
    if constexpr (Codes) opaque(out);
    return out;
  };
  T r[kRegs][E];
  NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegs); ++s) NOS_EACH r[s][e] = T(0);
  NOS_NO_UNROLL for (int begin = 0; begin + warp_first < count;
                     begin += tile) {  // warps past the end have nothing to do
    const Quads quads{begin + lane_first, stride};
    int whole = sm.aligned && begin + tile <= count;
    opaque(whole);
    if (whole) {
      [[maybe_unused]] float scale[kRegInputs];
      const uint32_t from = dtypes();
      NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) if (reads >> s & 1) {
        const uint32_t dtype = stored_as<Codes>(from, s);
        NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
          const int i = quads.first + j * stride;
          if constexpr (Codes)
            fetch4_any(sm.data[s], dtype, i, &r[s][4 * j]);
          else
            fetch4<T, Mixed>(sm.data[s], dtype, i, &r[s][4 * j]);
        }
        if constexpr (Codes) scale[s] = load_scale(sm.scales[s], quads.first / kFoldUnit, is_code(dtype));
      }
      if constexpr (Mixed) {
        const uint32_t again = dtypes();
        NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) if (reads >> s & 1)
            NOS_UNROLL for (int j = 0; j < E / 4; ++j) {
          if constexpr (Codes)
            widen4_any(stored_as<Codes>(again, s), scale[s], &r[s][4 * j]);
          else
            widen4<T, Mixed>(dtype_of(again, s), &r[s][4 * j]);
        }
      }
    } else if constexpr (Codes) {
      // One slot after the other, as the code for each is long.
      NOS_NO_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) {
        if (!(reads >> s & 1)) continue;
        T x[E];
        const uint32_t dtype = any_dtype_of(sm.dtypes, s);
        NOS_EACH x[e] = quads.at(e) < count ? load_any(sm, s, dtype, quads.at(e)) : T(0);
        NOS_UNROLL for (int k = 0; k < static_cast<int>(kRegInputs); ++k) if (k == s) NOS_EACH r[k][e] = x[e];
      }
    } else {
      NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) if (reads >> s & 1)
          NOS_EACH if (quads.at(e) < count) r[s][e] = load1<T, Mixed>(sm.data[s], dtype_of(dtypes(), s), quads.at(e));
    }
    // Registers of temporaries are free until here.
    if constexpr (Codes) NOS_UNROLL for (int s = kRegInputs; s < static_cast<int>(kRegs); ++s) NOS_EACH r[s][e] = T(0);
    prefetch_tile<T, Codes>(ctx, sm, begin + tile, tile);
    const T factor = sm.factor;
    NOS_EACH r[1][e] *= factor;
    interpret<T, E, Mixed, Folds, Codes>(ctx, sm, code, r, overflow, threads, quads);
    opaque(whole);
    Quads out = quads;
    opaque(out.first);
    uint32_t plain = writes & ~2u;
    const uint32_t to = dtypes();
    if constexpr (Codes) {
      // One by one, as the code for each is long.
      NOS_NO_UNROLL for (int s = 2; s < static_cast<int>(kRegInputs); ++s) {
        if (!(plain >> s & 1) || !is_code(any_dtype_of(sm.dtypes, s))) continue;
        T x[E];
        NOS_UNROLL for (int k = 2; k < static_cast<int>(kRegInputs); ++k) if (k == s) NOS_EACH x[e] = r[k][e];
        store_codes<E>(ctx, sm, s, out, x);
        plain &= ~(1u << s);
      }
    }
    if constexpr (Mixed) {
      if (sm.rounding) {
        NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) {
          if (!(plain >> s & 1) || !is_stochastic(sm, s) || !is_half(dtype_of(to, s))) continue;
          store_stochastic<E>(sm, s, out, r[s]);
          plain &= ~(1u << s);
        }
      }
    }
    if (whole) {
      NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) if (plain >> s & 1)
          NOS_UNROLL for (int j = 0; j < E / 4; ++j)
              store4<T, Mixed>(sm.data[s], dtype_of(to, s), out.first + j * stride, &r[s][4 * j]);
    } else {
      NOS_UNROLL for (int s = 0; s < static_cast<int>(kRegInputs); ++s) if (plain >> s & 1)
          NOS_EACH if (out.at(e) < count) store1<T, Mixed>(sm.data[s], dtype_of(to, s), out.at(e), r[s][e]);
    }
  }
}

#undef NOS_EACH

}  // namespace nos::cuda
