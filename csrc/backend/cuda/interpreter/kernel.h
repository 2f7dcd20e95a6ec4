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
#include "../common/block.h"
#include "../common/memory.h"
#include "../common/unroll.h"
#include "codes.h"
#include "fetch.h"
#include "fold.h"
#include "interpret.h"
#include "isa.h"
#include "registers.h"
#include "tile.h"

namespace nos::cuda {

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
        // Selects: of branches some compilers make a jump table.
        NOS_UNROLL for (int k = 0; k < static_cast<int>(kRegInputs); ++k) NOS_EACH r[k][e] = k == s ? x[e] : r[k][e];
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
        NOS_EACH x[e] = r[2][e];
        NOS_UNROLL for (int k = 3; k < static_cast<int>(kRegInputs); ++k) NOS_EACH x[e] = k == s ? r[k][e] : x[e];
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

}  // namespace nos::cuda
