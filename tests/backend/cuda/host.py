"""The CUDA interpreter's own kernel body, built by the host compiler and run for every (block, thread) pair.

`apply` takes NumPy arrays as `nos_ext.apply_rule` does, so that a test can run both; bfloat16 as its uint16 bits.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import nos_ext

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [
    "tests/backend/cuda/host_kernel.cc",
    "csrc/backend/cuda/captured.cc",
    "csrc/backend/cuda/job.cc",
    "csrc/backend/cuda/lower.cc",
    "csrc/backend/cuda/listing.cc",
    "csrc/plan/plan.cc",
    "csrc/program/program.cc",
    "csrc/program/names.cc",
    "csrc/program/verify.cc",
    "csrc/program/disasm.cc",
    "csrc/program/analysis.cc",
]
FLAGS = ["-std=c++20", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror"]  # fmt: skip
DTYPES = {"float32": 0, "float64": 1, "uint16": 2, "float16": 3}
SHARED_LIMIT = 227 * 1024  # bytes per block of an H100


class _Step(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_int) for n in ("num_programs", "lists", "tensors", "rows")]
        + [(n, ctypes.c_void_p) for n in ("program_bytes", "program_sizes", "data", "numel", "dtype", "row_of", "hypers", "seeds")]
        + [(n, ctypes.c_double) for n in ("total_steps", "factor")]
        + [("chunk", ctypes.c_int64), ("shared_limit", ctypes.c_uint64)]
        + [(n, ctypes.c_uint32) for n in ("population", "step", "first_index", "registers", "stochastic_rounding")]
    )  # fmt: skip


def build(*flags: str) -> Path:
    """The shared library, compiled when a source has changed."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if not compiler:
        pytest.skip("no g++ to build the kernel for the host")
    headers = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".def"} and "bind" not in p.parts)
    digest = hashlib.sha256(" ".join(FLAGS + list(flags)).encode())
    for path in [*headers, *(ROOT / s for s in SOURCES)]:
        digest.update(path.read_bytes())
    out = ROOT / "build" / "cuda_host" / f"host_kernel_{digest.hexdigest()[:16]}.so"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *FLAGS, *flags, "-o", part, *SOURCES], cwd=ROOT, check=True)
        part.replace(out)
    return out


@dataclass
class Captured:
    """Steps of a captured image: `before` of the programs, then `after` with `later` in the place of one of them."""

    before: int
    later: nos_ext.Program | None = None
    number: int = 0
    hypers: dict[str, float] = field(default_factory=dict)
    after: int = 0
    temporaries: int = 4
    scalars: int = 128
    threads: int = 32  # of a block of the prologue
    backwards: bool = False  # its last block first, and its last thread first


@cache
def library() -> ctypes.CDLL:
    """The loaded library: $NOS_HOST_KERNEL, or one built now."""
    lib = ctypes.CDLL(os.environ.get("NOS_HOST_KERNEL") or str(build("-O1")))
    lib.nos_host_step.restype = ctypes.c_char_p
    lib.nos_host_captured.restype = ctypes.c_char_p
    lib.nos_host_listing.restype = ctypes.c_char_p
    return lib


def listing(program: nos_ext.Program, registers: int = 9) -> tuple[list[str], int]:
    """Device code, a line per instruction, and the number of overflow slots."""
    overflow = ctypes.c_uint32()
    code = program.bytecode
    text = library().nos_host_listing(code, ctypes.c_size_t(len(code)), registers, ctypes.byref(overflow)).decode()
    assert not text.startswith("error"), text
    return text.splitlines(), overflow.value


def values(program: nos_ext.Program, given: dict[str, float]) -> np.ndarray:
    """64 numbers: the hyperparameters in order."""
    known = program.hyperparameters
    out = np.zeros(64)
    out[: len(known)] = [given.get(name, default) for name, default in known.items()]
    return out


def apply(
    programs: nos_ext.Program | Sequence[nos_ext.Program],
    params: list[np.ndarray],
    grads: list[np.ndarray],
    state: Sequence[list[np.ndarray]],
    *,
    groups: Sequence[dict[str, float]],
    group_of: Sequence[int] | None = None,
    step: int = 1,
    total_steps: float = 10_000,
    seeds: Sequence[int] | None = None,
    factor: float = 1,
    tensor_index: int = 0,
    chunk: int = 0,
    registers: int = 9,
    shared_limit: int = SHARED_LIMIT,
    stochastic_rounding: bool = False,
    captured: Captured | None = None,
) -> int:
    """One step by the kernel; returns how many blocks have run (0 for captured steps). Several programs: a population,
    one group of hyperparameters for each."""
    several = not isinstance(programs, nos_ext.Program)
    listed: list[nos_ext.Program] = list(programs) if several else [programs]  # type: ignore[arg-type, list-item]
    lists = [params, grads, *state]
    codes = [p.bytecode for p in listed]
    hypers = np.stack([values(listed[r if several else 0], group) for r, group in enumerate(groups)])
    arrays = [a for one in lists for a in one]
    keep = {
        "program_bytes": (ctypes.c_char_p * len(codes))(*codes),
        "program_sizes": (ctypes.c_size_t * len(codes))(*map(len, codes)),
        "data": (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)),
        "numel": (ctypes.c_int64 * len(params))(*(p.size for p in params)),
        "dtype": (ctypes.c_uint8 * len(arrays))(*(DTYPES[a.dtype.name] for a in arrays)),
        "row_of": (ctypes.c_uint32 * len(params))(*(group_of or [0] * len(params))),
        "hypers": hypers.ctypes.data_as(ctypes.c_void_p),
        "seeds": (ctypes.c_uint64 * len(groups))(*(seeds or [0] * len(groups))),
    }
    arguments = _Step(
        num_programs=len(listed), lists=len(lists), tensors=len(params), rows=len(groups),
        total_steps=total_steps, factor=factor, chunk=chunk, shared_limit=shared_limit,
        population=len(listed) if several else 0, step=step, first_index=tensor_index, registers=registers,
        stochastic_rounding=stochastic_rounding,
        **{k: ctypes.cast(v, ctypes.c_void_p) for k, v in keep.items()},
    )  # fmt: skip
    blocks = ctypes.c_uint64()
    if captured is None:
        error = library().nos_host_step(ctypes.byref(arguments), ctypes.byref(blocks))
    else:
        later = captured.later.bytecode if captured.later else None
        later_hypers = values(captured.later, captured.hypers) if captured.later else np.zeros(64)
        error = library().nos_host_captured(
            ctypes.byref(arguments), captured.before, later, ctypes.c_size_t(len(later or b"")),
            captured.number, later_hypers.ctypes.data_as(ctypes.c_void_p), captured.after, captured.temporaries,
            ctypes.c_uint32(captured.scalars), captured.threads, captured.backwards,
        )  # fmt: skip
    if error:
        raise ValueError(error.decode())
    return blocks.value
