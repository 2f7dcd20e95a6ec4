"""The passes of bench/native: the stream that sets the limit, and hand-fused loops; compiled here, called by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch  # noqa: F401  # before the library: both then share torch's OpenMP

from ..case import Case, Contender, NotApplicable, Unavailable

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "bench" / "native" / "passes.cc"
# The numerics flags of cmake/NosEngine.cmake; free use of this machine's instructions, as generated code would have.
_FLAGS: Final = ("-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
GROUP: Final = 64 * 1024  # elements taken at a time when threads share the work dynamically
_P: Final = ctypes.c_void_p


def flags() -> tuple[str, ...]:
    x86 = platform.machine() in ("x86_64", "AMD64")
    return (*_FLAGS, "-march=native", "-fopenmp", *(("-mprefer-vector-width=512",) if x86 else ()))


@functools.cache
def library() -> Any:
    """The loaded library, compiled first if sources, flags or the compiler are new. Unavailable without a compiler."""
    compiler = os.environ.get("CXX", "c++")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"the C++ compiler {compiler} does not run ({error})") from error
    sources = [*sorted(SOURCE.parent.iterdir()), *sorted((ROOT / "csrc" / "ops").iterdir())]
    digest = hashlib.sha256(repr((flags(), version)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = ROOT / "build" / "bench" / f"passes-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        done = subprocess.run([compiler, *flags(), str(SOURCE), "-o", str(part)], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{SOURCE.name} does not compile: {done.stderr.strip()[:400]}")
        part.replace(path)
    out = ctypes.CDLL(str(path))
    out.nosb_find.argtypes = [ctypes.c_char_p]
    out.nosb_make.restype = _P
    out.nosb_make.argtypes = [ctypes.c_int, ctypes.c_int64, _P, _P, ctypes.c_int64, ctypes.c_int]
    out.nosb_run.argtypes = [_P, _P, ctypes.c_int64]
    out.nosb_run.restype = None
    out.nosb_free.argtypes = [_P]
    return out


class _Job:
    """A pass over the tensors of a case, with its own way of sharing the work among threads."""

    def __init__(self, name: str, case: Case, scalars: Sequence[float], group: int, threads: int) -> None:
        self._library = library()
        index = self._library.nosb_find(name.encode())
        if index < 0:
            raise Unavailable(f"bench/native has no pass {name}")
        flat = [x.data_ptr() for tensors in case.lists for x in tensors]
        numel = [p.numel() for p in case.params]
        self._scalars = (ctypes.c_float * len(scalars))(*scalars)
        self._job = self._library.nosb_make(
            index, len(numel), (ctypes.c_int64 * len(numel))(*numel), (_P * len(flat))(*flat), group, threads
        )

    def __del__(self) -> None:
        if getattr(self, "_job", None):
            self._library.nosb_free(self._job)

    def run(self, n: int) -> None:
        self._library.nosb_run(self._job, self._scalars, n)


def _best_of(run: Callable[[int], None]) -> float:
    """Seconds of a call: the shortest of some samples of 100 us and more."""
    run(1)
    start = time.perf_counter()
    run(1)
    n = max(1, int(100e-6 / max(time.perf_counter() - start, 1e-7)))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        run(n)
        best = min(best, (time.perf_counter() - start) / n)
    return best


def fastest(name: str, case: Case, scalars: Sequence[float]) -> _Job:
    """The pass by one thread, in equal parts, or in groups from a counter: whichever runs fastest on this case."""
    total = sum(p.numel() for p in case.params)
    ways = {(max(total, 1), 1)}
    if case.threads > 1:
        ways |= {(-(-total // case.threads), case.threads), (GROUP, case.threads)}
    jobs = [_Job(name, case, scalars, group, threads) for group, threads in sorted(ways)]
    return jobs[0] if len(jobs) == 1 else min(jobs, key=lambda job: _best_of(job.run))


def limit(case: Case) -> Contender:
    """Reads and writes the same arrays as the rule, with one operation for each written array."""
    return Contender("limit", fastest(f"stream_{case.rule.tensors}", case, [0.0]).run, peer=False)


def build(case: Case, label: str) -> Contender:
    if label not in case.rule.native:
        raise NotApplicable(f"{label} does not apply to {case.rule.name}")
    job = fastest(case.rule.native[label], case, list(case.rule.at(case.step).values()))
    return Contender(label, job.run, peer=False)


LABELS: Final = ("hand-fused", "hand-fused select")
