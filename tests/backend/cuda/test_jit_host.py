"""The kernels of the compiled tier, built for the host by g++ and run over all (block, thread) pairs: the bits of the
conformance suite's reference for every op, for random rules, sizes, alignments, dtypes, chunks, rows and slices."""

from __future__ import annotations

import ctypes
import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest

import nos_ext
from nos_ext import _C
from tests.backend import programs as pg
from tests.backend.conformance.backends import CudaOnHost, Reference, outcome
from tests.backend.conformance.call import BF16, Call
from tests.backend.conformance.cases import F16, F32, F64, lists_of
from tests.backend.cuda import host

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
NAMES = {F32: "float32", F64: "float64", BF16: "bfloat16", F16: "float16"}
SIZES = (1, 3, 4, 5, 31, 33, 255, 1023, 1025, 2049, 4100, 8193)
Dtypes = tuple[np.dtype, ...]


def cases() -> list[tuple[_C.Program, Dtypes]]:
    out = []
    for name in pg.ELEMENTWISE:
        for scalars in range(2 ** pg.ARITY[name] - 1):
            out.append((pg.of_op(name, scalars), (F32,) * 4))
        out.append((pg.of_op(name), (F64,) * 4))
    out += [(pg.of_op(name), (d,) * 4) for name in pg.RANDOM for d in (F32, F64, BF16)]
    dtypes = itertools.cycle([(F32,) * 4, (BF16, F16, F32, BF16), (F16,) * 4, (F32,) * 4, (F64,) * 4])
    rng = random.Random(5)
    for length in (1, 5, 5, 10, 10, 20, 20, 20, 30, 40, 80):
        states = rng.randint(0, 2)
        out.append((pg.random_program(rng, length, states), next(dtypes)[: 2 + states]))
    out.append((pg.assemble([], [1]), (F32, BF16)))  # p <- g
    out.append((pg.assemble([], [pg.LR, 2]), (BF16,) * 3))  # a scalar; a state that stays
    return out


CASES = cases()
RULES = [i for i, (program, _) in enumerate(CASES) if len(program) > 1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Every case in two translation units of one shared library."""
    prelude = _C.cuda_source(CASES[0][0], [NAMES[d] for d in CASES[0][1]]).split(
        "namespace nos::cuda::jit {\nstruct Rule"
    )[0]
    units = [SHIM + prelude] * 2
    for i, (program, dtypes) in enumerate(CASES):
        text = _C.cuda_source(program, [NAMES[d] for d in dtypes], prelude=False)
        units[i % 2] += re.sub(r"\b(Rule|nos_rule)\b", rf"\1_{i}", text).replace('extern "C"', "") + DRIVER % (i, i)
    folder = tmp_path_factory.mktemp("jit")
    for k, text in enumerate(units):
        (folder / f"rules{k}.cc").write_text(text)
    flags = ["-O1", "-march=native", "-w"]
    return ctypes.CDLL(str(host.link("rules.so", [*folder.glob("*.cc")], flags, options=["-shared"], shared=[])))


def compare(library: ctypes.CDLL, case: int, call: Call, **tuning: int) -> None:
    backend = CudaOnHost(compiled=getattr(library, f"run_{case}"), tunings=(tuning,))
    found, expected = outcome(backend, call, 0), outcome(Reference(), call, 0)
    assert found is not None
    assert expected is not None
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a == b).all(), f"case {case}, tensor {k}, {tuning}\n{call.programs[0].disassemble()}"


def calls(case: int, seed: int, slices: int = 1, **more: object) -> Call:
    """Three tensors, whose rows of scalars all differ; or a population."""
    program, dtypes = CASES[case]
    make = np.random.default_rng(seed)
    lists = lists_of(make, [int(n) * slices for n in make.choice(SIZES, 3)], dtypes)
    rows = [{"lr": float(x)} for x in make.uniform(0.01, 0.5, max(slices, 3))]
    seeds = [int(x) for x in make.integers(0, 2**63, len(rows))]
    common = {
        "seeds": seeds[:1],
        "step": int(make.integers(1, 1000)),
        "total_steps": 2000.0,
        "tensor_index": int(make.integers(0, 50)),
        **more,
    }
    if slices == 1:
        return Call([program], lists, rows, [0, 1, 2], **common)  # type: ignore[arg-type]
    return Call([program] * slices, lists, rows[:slices], population=True, **common | {"seeds": seeds[:slices]})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_same_bits_as_the_cpu_engine(library: ctypes.CDLL, case: int) -> None:
    compare(library, case, calls(case, case))
    compare(library, case, calls(case, 1000 + case, offset=case % 3 + 1, maximize=True, grad_scale=2.0), chunk=96)


# of the first rule a population whose scalars are beyond what a kernel's arguments hold, too
@pytest.mark.parametrize(("case", "slices"), [*itertools.product(RULES, (1, 3)), (RULES[0], 40)])
def test_rows_slices_chunks_and_alignment(library: ctypes.CDLL, case: int, slices: int) -> None:
    for offset, chunk in itertools.product((0, 1, 2), (32, 1024, 16384)):
        compare(library, case, calls(case, 77 * case + chunk + offset, slices, offset=offset), chunk=chunk)


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
    """One source of the scalar functions and of access to memory: every line of code of theirs is in what NVRTC reads."""
    text = _C.cuda_source(nos_ext.compile_rule("g"), ["float32"] * 2)
    csrc = Path(__file__).resolve().parents[3] / "csrc"
    ops = [csrc / "ops" / name for name in ("portable.h", "convert.h", "math_f32.h", "math.h", "philox.h")]
    for path in (*ops, *(csrc / "backend/cuda/common" / name for name in ("records.h", "memory.h", "block.h"))):
        lines = [x for x in path.read_text().splitlines() if not re.match(r"\s*(//|#pragma once|#include)", x)]
        assert all(line in text for line in lines), path
