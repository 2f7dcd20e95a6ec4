"""The kernels of the compiled tier, built for the host by g++ and run over all (block, thread) pairs: the CPU engine's
bits (NaN payloads aside) for every op, for random rules, sizes, alignments, dtypes, chunks, rows and slices, and nothing
written beside the tensors."""

from __future__ import annotations

import ctypes
import itertools
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nos_ext
from nos_ext import _C
from tests.backend.cuda import programs as pg

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="needs g++")

SHIM = """
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#define __global__ static
#define __launch_bounds__(...)
#define __grid_constant__
static struct { unsigned x; } threadIdx, blockIdx;
"""
DRIVER = """
extern "C" void run_%d(const nos::cuda::Launch* launch, unsigned blocks) {
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < 256; ++threadIdx.x) nos_rule_%d(*launch);
}
"""
DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
NUMPY = {"float32": np.float32, "float64": np.float64, "bfloat16": np.uint16, "float16": np.float16}
SIZES = (1, 3, 4, 5, 31, 33, 255, 1023, 1025, 2049, 4100, 8193)
MIXED = ("bfloat16", "float16", "float32", "bfloat16")


def cases() -> list[tuple[_C.Program, tuple[str, ...]]]:
    out = []
    for name in pg.ELEMENTWISE:
        for scalars in range(2 ** pg.ARITY[name] - 1):
            out.append((pg.of_op(name, scalars), ("float32",) * 4))
        out.append((pg.of_op(name), ("float64",) * 4))
    out += [(pg.of_op(name), (d,) * 4) for name in pg.RANDOM for d in ("float32", "float64", "bfloat16")]
    dtypes = itertools.cycle([("float32",) * 4, MIXED, ("float16",) * 4, ("float32",) * 4, ("float64",) * 4])
    rng = random.Random(5)
    for length in (1, 5, 5, 10, 10, 20, 20, 20, 30, 40, 80):
        states = rng.randint(0, 2)
        out.append((pg.random_program(rng, length, states), next(dtypes)[: 2 + states]))
    out.append((pg.assemble([], [1]), ("float32", "bfloat16")))  # p <- g
    out.append((pg.assemble([], [pg.LR, 2]), ("bfloat16",) * 3))  # a scalar; a state that stays
    return out


CASES = cases()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Every case in four translation units of one shared library."""
    folder = tmp_path_factory.mktemp("jit")
    units = [SHIM + _C.cuda_source(CASES[0][0], CASES[0][1]).split("namespace nos::cuda::jit {\nstruct Rule")[0]] * 2
    for i, (program, dtypes) in enumerate(CASES):
        text = _C.cuda_source(program, dtypes, prelude=False)
        units[i % 2] += re.sub(r"\b(Rule|nos_rule)\b", rf"\1_{i}", text).replace('extern "C"', "") + DRIVER % (i, i)
    flags = [
        "-std=c++20",
        "-O1",
        "-march=native",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fPIC",
    ]
    jobs = []
    for k, text in enumerate(units):
        (folder / f"{k}.cc").write_text(text)
        command = [str(GXX), *flags, "-w", "-c", str(folder / f"{k}.cc"), "-o", str(folder / f"{k}.o")]
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for job in jobs:
        _, log = job.communicate()
        assert job.returncode == 0, log[:4000]
    out = folder / "rules.so"
    subprocess.run([str(GXX), "-shared", *map(str, folder.glob("*.o")), "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


PAD = 32  # canary elements on either side
EDGES = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38, 0.5, 2.0, 1e-8)


class Slot:
    """Tensors of one slot: views that lie `offset` elements past a multiple of 64 bytes, between canaries."""

    def __init__(self, rng: np.random.Generator, dtype: str, sizes: list[int], offset: int) -> None:
        self.dtype, self.memory, self.views = dtype, [], []
        for n in sizes:
            x = rng.standard_normal(n).astype(np.float32)
            x = np.where(rng.random(n) < 0.1, rng.choice(EDGES, n), x).astype(np.float32)
            raw = (x.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else self._cast(x, NUMPY[dtype])
            room = np.full(n + 2 * PAD + offset + 64, 77, raw.dtype)
            start = -(room.ctypes.data // raw.itemsize) % (64 // raw.itemsize) + PAD + offset
            room[start : start + n] = raw
            self.memory.append(room)
            self.views.append(room[start : start + n])

    @staticmethod
    def _cast(x: np.ndarray, dtype: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return x.astype(dtype)

    def copies(self) -> list[Any]:
        """For the CPU engine."""
        if self.dtype != "bfloat16":
            return [v.copy() for v in self.views]
        torch = pytest.importorskip("torch")
        return [torch.from_numpy(v.view(np.int16).copy()).view(torch.bfloat16) for v in self.views]


def bits(x: Any) -> np.ndarray:
    """With one NaN for all."""
    if not isinstance(x, np.ndarray):  # a bfloat16 tensor
        import torch

        x = x.view(torch.int16).numpy().view(np.uint16)
    if x.dtype == np.uint16:
        return np.where(x & 0x7FFF > 0x7F80, np.uint16(0x7FC0), x)
    x = np.where(np.isnan(x), np.nan, x).astype(x.dtype)
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize])


def launch_bytes(slots: list[Slot], rows: list[list[float]], *, chunk: int, step: int, seeds: list[int], factor: float,
                 slices: int, row_of: list[int], first_index: int, inline: bool) -> tuple[bytes, int, list[Any]]:  # fmt: skip
    """The records of csrc/backend/cuda/common/records.h; the last of the results keeps them alive."""
    tensors, chunks = b"", b""
    for i in range(len(slots[0].views)):
        n = slots[0].views[i].size // slices
        words = [s.views[i].ctypes.data for s in slots] + [0] * (10 - len(slots))
        dtypes = sum(DTYPES[s.dtype] << 2 * k for k, s in enumerate(slots))
        aligned = all(
            (s.views[i].ctypes.data + k * n * s.views[i].itemsize) % min(16, 4 * s.views[i].itemsize) == 0
            for s in slots
            for k in range(slices)
        )
        tensors += struct.pack("<10QqIIIIII", *words, n, dtypes, int(aligned), 0, row_of[i], first_index + i, 0)
        for k in range(slices):
            chunks += b"".join(struct.pack("<qII", at, i, k) for at in range(0, n, chunk))
    wide = slots[0].dtype == "float64"
    block = struct.pack("<IId", step, 0, factor)
    width = len(rows[0])
    block += b"".join(struct.pack("<QII", seeds[r], r * width, 0) for r in range(len(rows)))
    with np.errstate(all="ignore"):
        block += np.array(rows, np.float64).astype(np.float64 if wide else np.float32).tobytes()
    keep = [ctypes.create_string_buffer(b, len(b) + 16) for b in (tensors, chunks, block)]
    address = [ctypes.addressof(k) for k in keep]
    inline = inline and len(block) <= 2048
    out = struct.pack("<5Q4I8x", address[0], address[1], 0, 0, 0 if inline else address[2], len(rows), chunk, 0, 0)
    return out + block.ljust(2048, b"\0")[:2048], len(chunks) // 16, keep


def run_both(library: ctypes.CDLL, case: int, seed: int, *, offset: int = 0, chunk: int = 2048, slices: int = 1,
             groups: int = 1, factor: float = 1.0, inline: bool = True) -> None:  # fmt: skip
    program, dtypes = CASES[case]
    rng = np.random.default_rng(seed)
    sizes = [n * slices for n in rng.choice(SIZES, 3)]
    slots = [Slot(rng, d, sizes, offset) for d in dtypes]
    expected = [s.copies() for s in slots]
    step, total, first_index = int(rng.integers(1, 1000)), 2000.0, int(rng.integers(0, 50))
    lrs = [float(x) for x in rng.uniform(0.01, 0.5, groups)]
    seeds = [int(x) for x in rng.integers(0, 2**63, groups)]
    rows = [program.eval_scalars(step, total, [lr]) for lr in lrs]
    row_of = [i % groups if slices == 1 else 0 for i in range(len(sizes))]
    args = {"step": step, "total_steps": total, "maximize": factor < 0, "grad_scale": 1 / abs(factor)}
    with np.errstate(all="ignore"):
        if slices > 1:
            shaped = [[x.reshape(slices, -1) for x in slot] for slot in expected]
            nos_ext.apply_population(
                [program] * slices,
                shaped[0],
                shaped[1],
                shaped[2:],
                lr=lrs,
                seed=seeds,
                tensor_index=first_index,
                **args,
            )
        else:
            for i in range(len(sizes)):
                one = [[slot[i]] for slot in expected]
                r = row_of[i]
                nos_ext.apply_rule(
                    program, one[0], one[1], one[2:], lr=lrs[r], seed=seeds[r], tensor_index=first_index + i, **args
                )
    data, blocks, keep = launch_bytes(
        slots, rows, chunk=chunk, step=step, seeds=seeds, factor=factor, slices=slices, row_of=row_of,
        first_index=first_index, inline=inline,
    )  # fmt: skip
    room = ctypes.create_string_buffer(data, len(data) + 64)
    start = -ctypes.addressof(room) % 16
    ctypes.memmove(ctypes.addressof(room) + start, data, len(data))
    getattr(library, f"run_{case}")(ctypes.c_void_p(ctypes.addressof(room) + start), blocks)
    del keep
    for k, slot in enumerate(slots):
        for i, view in enumerate(slot.views):
            where = f"case {case} slot {k} tensor {i}\n{program.disassemble()}"
            assert (bits(view) == bits(expected[k][i])).all(), where
            begin = (view.ctypes.data - slot.memory[i].ctypes.data) // view.itemsize
            assert (slot.memory[i][:begin] == 77).all(), where
            assert (slot.memory[i][begin + view.size :] == 77).all(), where


def test_layout_of_the_launch_argument() -> None:
    """The tests' own packing agrees with records.h (its static_asserts hold the other structs)."""
    assert len(struct.pack("<10QqIIIIII", *range(17))) == 112
    assert struct.calcsize("<5Q4I8x") == 64


@pytest.mark.parametrize("case", range(len(CASES)))
def test_same_bits_as_the_cpu_engine(library: ctypes.CDLL, case: int) -> None:
    run_both(library, case, case)
    run_both(library, case, 1000 + case, offset=case % 3 + 1, chunk=96, factor=-0.5, inline=False)


RULES = [i for i, (p, _) in enumerate(CASES) if len(p) > 1]


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("slices", [1, 3])
def test_rows_slices_chunks_and_alignment(library: ctypes.CDLL, case: int, slices: int) -> None:
    for offset, chunk in itertools.product((0, 1, 2), (32, 1024, 16384)):
        run_both(library, case, 77 * case + chunk + offset, offset=offset, chunk=chunk, slices=slices, groups=3)


def test_constants_and_names_are_not_in_the_text() -> None:
    """Rules that differ in numbers only share one kernel."""
    code = [(pg.OPS["mul"], 1, pg.S | 3, 0)]
    one, two = (pg.assemble(code, [2], (c,)) for c in (0.25, 3.5))
    assert _C.cuda_source(one, ["float32"] * 2) == _C.cuda_source(two, ["float32"] * 2)
    assert _C.cuda_source(one, ["float32"] * 2) != _C.cuda_source(one, ["bfloat16", "float32"])


def test_dead_code_and_unchanged_states_cost_nothing() -> None:
    """m stays, so it is neither written nor, being read by dead code only, loaded."""
    program = pg.assemble([(pg.OPS["exp"], 2, 0, 0), (pg.OPS["sub"], 0, 1, 0)], [4, 2])
    text = _C.cuda_source(program, ["float32"] * 3, prelude=False)
    assert "kRead[] = {true, true, false}, kWritten[] = {true, false, false}" in text
    assert "math::exp" not in text


def test_refusals() -> None:
    program = nos_ext.compile_rule("g * m")
    with pytest.raises(ValueError, match=r"dtypes has 2 names.*3 slots"):
        _C.cuda_source(program, ["float32"] * 2)
    with pytest.raises(ValueError, match=r"dtypes\[1\] is 'int8'"):
        _C.cuda_source(program, ["float32", "int8", "float32"])
    with pytest.raises(ValueError, match="mixes float64"):
        _C.cuda_source(program, ["float64", "float32", "float32"])


def test_the_prelude_is_the_shared_headers() -> None:
    """One source of the scalar functions: every line of code of csrc/ops that defines one is in what NVRTC reads."""
    text = _C.cuda_source(nos_ext.compile_rule("g"), ["float32"] * 2)
    csrc = Path(__file__).resolve().parents[3] / "csrc"
    for name in ("portable.h", "convert.h", "math_f32.h", "math.h", "philox.h"):
        lines = [
            x
            for x in (csrc / "ops" / name).read_text().splitlines()
            if not re.match(r"\s*(//|#pragma once|#include)", x)
        ]
        assert all(line in text for line in lines), name
