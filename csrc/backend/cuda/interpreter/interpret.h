// Owns the interpreter's loop: one thread runs a program over the elements that it holds of a tile.
#pragma once
#include "../../../ops/math.h"
#include "../../../ops/philox.h"
#include "../common/memory.h"
#include "../common/unroll.h"
#include "fetch.h"
#include "fold.h"
#include "isa.h"
#include "registers.h"
#include "tile.h"

namespace nos::cuda {

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

}  // namespace nos::cuda
