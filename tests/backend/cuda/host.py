"""The CUDA interpreter's own kernel body, built by the host compiler and run for every (block, thread) pair.

`apply` takes NumPy arrays as `nos_ext.apply_rule` does, so that a test can run both; bfloat16 as its uint16 bits.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nos_ext
from tests.compiling import compile_

ROOT = Path(__file__).resolve().parents[3]
SHARED = [  # what every program of these tests is linked with
    "tests/backend/cuda/host_run.cc",  # takes as long as all others together
    "csrc/backend/cuda/common/batches.cc",
    "csrc/backend/cuda/common/step_block.cc",
    "csrc/backend/cuda/interpreter/lower.cc",
    "csrc/backend/cuda/interpreter/trees.cc",
    "csrc/backend/cuda/interpreter/program_table.cc",
    "csrc/backend/cuda/interpreter/shape.cc",
    "csrc/backend/cuda/captured/image.cc",
    "csrc/backend/cuda/reducing/image.cc",
    "csrc/plan/plan.cc",
    "csrc/program/program.cc",
    "csrc/program/names.cc",
    "csrc/program/verify.cc",
    "csrc/program/disasm.cc",
    "csrc/program/analysis.cc",
    "csrc/program/passes.cc",
]
FLAGS = ["-std=c++20", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror"]  # fmt: skip
SANITIZED = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
DTYPES = {"float32": 0, "float64": 1, "uint16": 2, "float16": 3, "int8": 4, "uint8": 5}
SHARED_LIMIT = 227 * 1024  # bytes per block of an H100


class _Step(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_int) for n in ("num_programs", "lists", "tensors", "rows")]
        + [(n, ctypes.c_void_p) for n in ("program_bytes", "program_sizes", "data", "first_grads", "numel", "dtype", "scales", "row_of", "program_of", "hypers", "seeds")]
        + [(n, ctypes.c_double) for n in ("total_steps", "factor")]
        + [("chunk", ctypes.c_int64), ("shared_limit", ctypes.c_uint64), ("compiled", ctypes.c_void_p)]
        + [(n, ctypes.c_uint32) for n in ("population", "step", "first_index", "registers", "rounding")]
    )  # fmt: skip


def compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("g++")
    if not found:
        pytest.skip("no g++ to build the kernel for the host")
    return found


def link(
    name: str,
    sources: Sequence[str | Path],
    flags: Sequence[str],
    *,
    own: Sequence[str] = (),
    options: Sequence[str] = (),
    shared: Sequence[str] = SHARED,
) -> Path:
    """A program or library of these sources, which have flags of their own too, and of the shared ones. What has been made
    before is taken, as long as no source has changed; two processes do not make the same at the same time."""
    folder = ROOT / "build" / "cuda_host"
    folder.mkdir(parents=True, exist_ok=True)
    headers = hashlib.sha256()
    for top in (ROOT / "csrc", ROOT / "tests/backend/cuda"):
        for path in sorted(p for p in top.rglob("*") if p.suffix in {".h", ".def"} and "bind" not in p.parts):
            headers.update(path.read_bytes())

    def made(target: str, inputs: Sequence[Path], *arguments: str) -> Path:
        digest = headers.copy()
        digest.update(" ".join([compiler(), *arguments]).encode())
        for path in inputs:
            digest.update(path.read_bytes())
        out = folder / f"{digest.hexdigest()[:16]}_{target}"
        if not out.exists():
            part = out.with_suffix(f".{os.getpid()}")
            compile_(compiler(), [*arguments, "-o", part, *inputs], root=ROOT, check=True)
            part.replace(out)
        return out

    def object_of(source: str | Path, *more: str) -> Path:
        return made(f"{Path(source).stem}.o", [ROOT / source], *FLAGS, *flags, *more, "-c")

    with open(folder / "lock", "w") as lock, ThreadPoolExecutor(os.cpu_count()) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs = [pool.submit(object_of, source, *own) for source in sources]
        jobs += [pool.submit(object_of, source) for source in shared[:1]]
        if shared[1:]:
            jobs.append(pool.submit(object_of, together(shared[1:], folder)))
        return made(name, [job.result() for job in jobs], *flags, *options)


def together(sources: Sequence[str], folder: Path) -> Path:
    """One source that is all of these: they read the same headers, which takes most of their time. It changes when one of
    them does."""
    state = hashlib.sha256(b"".join((ROOT / source).read_bytes() for source in sources)).hexdigest()
    parts = [f'#include "../../{source}"\n#undef NOS_OP\n' for source in sources]
    out = folder / "together.cc"
    out.write_text(f"// of {state}\n{''.join(parts)}", encoding="utf-8")
    return out


def build(*flags: str) -> Path:
    """The library that `apply` calls."""
    return link("host_kernel.so", ["tests/backend/cuda/host_kernel.cc"], flags, options=["-shared"])


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


def addresses(arrays: Sequence[np.ndarray | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*(None if a is None else a.ctypes.data for a in arrays))


def apply(
    programs: nos_ext.Program | Sequence[nos_ext.Program],
    params: list[np.ndarray],
    grads: list[np.ndarray | None],
    state: Sequence[list[np.ndarray]],
    *,
    groups: Sequence[dict[str, float]],
    group_of: Sequence[int] | None = None,
    program_of: Sequence[int] | None = None,
    step: int = 1,
    total_steps: float = 10_000,
    seeds: Sequence[int] | None = None,
    factor: float = 1,
    tensor_index: int = 0,
    chunk: int = 0,
    registers: int = 9,
    shared_limit: int = SHARED_LIMIT,
    stochastic_rounding: bool | str = False,
    first_grads: Sequence[np.ndarray | None] | None = None,
    compiled: Any = None,
    captured: Captured | None = None,
    scales: Sequence[Sequence[np.ndarray | None]] | None = None,
) -> int:
    """One step by the kernel; returns how many blocks have run (0 for captured steps). Several programs are a population
    and have one group of hyperparameters each, or with program_of those of the tensors; then the tensors of a group have
    the same one, and a state that a tensor's program does not have is None. scales: those of each state, where some are quantized. With first_grads it is two steps: the one before took these gradients. compiled: the function of a
    library that runs a kernel of the rule's own in the place of the interpreter."""
    several = not isinstance(programs, nos_ext.Program)
    listed: list[nos_ext.Program] = list(programs) if several else [programs]  # type: ignore[arg-type, list-item]
    lists = [params, grads, *state]
    codes = [p.bytecode for p in listed]
    rows = [(group_of or [0] * len(params)).index(r) if program_of else r for r in range(len(groups))]
    kinds = [program_of[row] if program_of else row if several else 0 for row in rows]
    hypers = np.stack([values(listed[kind], group) for kind, group in zip(kinds, groups, strict=True)])
    arrays = [p if a is None else a for one in lists for p, a in zip(params, one, strict=True)]
    keep = {
        "program_bytes": (ctypes.c_char_p * len(codes))(*codes),
        "program_sizes": (ctypes.c_size_t * len(codes))(*map(len, codes)),
        "data": addresses([a for one in lists for a in one]),
        "first_grads": addresses(first_grads) if first_grads else None,
        "numel": (ctypes.c_int64 * len(params))(*(p.size for p in params)),
        "dtype": (ctypes.c_uint8 * len(arrays))(*(DTYPES[a.dtype.name] for a in arrays)),
        "scales": addresses([a for one in scales for a in one]) if scales else None,
        "row_of": (ctypes.c_uint32 * len(params))(*(group_of or [0] * len(params))),
        "program_of": (ctypes.c_uint32 * len(params))(*program_of) if program_of else None,
        "hypers": hypers.ctypes.data_as(ctypes.c_void_p),
        "seeds": (ctypes.c_uint64 * len(groups))(*(seeds or [0] * len(groups))),
    }
    arguments = _Step(
        num_programs=len(listed), lists=len(lists), tensors=len(params), rows=len(groups),
        total_steps=total_steps, factor=factor, chunk=chunk, shared_limit=shared_limit,
        population=len(listed) if several and not program_of else 0, step=step, first_index=tensor_index, registers=registers,
        rounding={False: 0, "states": 2, True: 3}[stochastic_rounding], compiled=ctypes.cast(compiled, ctypes.c_void_p) if compiled else None,
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
