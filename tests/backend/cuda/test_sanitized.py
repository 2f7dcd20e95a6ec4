"""Plan, tables, captured image and kernel body under AddressSanitizer and UBSan, over random shapes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import nos_ext
from tests.backend.conformance.cases import quantized_states
from tests.backend.cuda import host

ROUNDS = 60


def test_no_access_outside_the_tensors() -> None:
    library = host.build(*host.SANITIZED)
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if "/" not in runtime:
        pytest.skip("no libasan")
    environment = {
        **os.environ, "LD_PRELOAD": runtime, "NOS_HOST_KERNEL": str(library), "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.backend.cuda.test_sanitized"]
    out = subprocess.run(command, env=environment, cwd=host.ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-6000:]
    assert out.stdout.split()[-1] == str(ROUNDS)


def main() -> None:
    """Each array is a heap block of its own, so a stray access by one element hits ASan's red zone."""
    make = np.random.default_rng(0)
    texts = ["g * exp(sign(g) * sign(m))", "adam + drop(g, 0.5)", "where(g < m, v, y) * normal(0.1)", "g"]
    programs = [nos_ext.compile_rule(t) for t in texts]
    names = ", ".join("abcdfhij")
    programs.append(
        nos_ext.compile_rule(f"def r(p, g, {names}, *, lr):\n    return p - lr * g, {names.replace('j', 'a * j')}")
    )
    for round_ in range(ROUNDS):
        population = round_ % 3 == 0
        chosen = [programs[k] for k in make.integers(0, len(programs), int(make.integers(1, 9)) if population else 1)]
        states = max(len(p.state_names) for p in chosen)
        kind = ["float32", "float64", "float16", "uint16"][round_ % 4]
        sizes = [int(n) * len(chosen) for n in make.integers(0, 700, 4)]
        # every other round misaligned: the view ends where its block ends
        skip = round_ % 2
        lists = [[np.ones(n + skip, kind)[skip:] for n in sizes] for _ in range(2 + states)]
        groups = [{"lr": 0.1}] * (len(chosen) if population else 2)
        host.apply(
            chosen if population else chosen[0], lists[0], lists[1], lists[2:], groups=groups,
            group_of=[k % 2 for k in range(4)], chunk=[0, 32, 256][round_ % 3],
            captured=host.Captured(1, programs[3], 0, {"lr": 1.0}, 1) if round_ % 5 == 0 and len(chosen) else None,
        )  # fmt: skip
    reductions(make)
    quantized()
    print(ROUNDS)


def reductions(make: np.random.Generator) -> None:
    """Rules that keep one number for each slice of a tensor, whose memory has room for no more."""
    programs = [
        nos_ext.compile_rule(f"def f(p, g, k, *, lr):\n    return p - lr * g / (1 + k), {new}")
        for new in ("norm(g)", "0.5 * k + global_sum(g / max_abs(p)) + dot(p, g)", "rms(g - mean(g))")
    ]
    for round_ in range(ROUNDS // 3):
        chosen = [programs[k] for k in make.integers(0, len(programs), int(make.integers(1, 5)) if round_ % 2 else 1)]
        several = len(chosen) > 1
        kind = ["float32", "float64", "float16", "uint16"][round_ % 4]
        sizes = [int(n) * len(chosen) for n in make.integers(0, 700, 4)]
        skip = round_ // 2 % 2
        params, grads = ([np.ones(n + skip, kind)[skip:] for n in sizes] for _ in range(2))
        numbers = [np.ones(len(chosen), "float64" if kind == "float64" else "float32") for _ in sizes]
        host.apply(
            chosen if several else chosen[0], params, grads, [numbers], groups=[{"lr": 0.1}] * len(chosen),
            chunk=[0, 256, 1024][round_ % 3],
        )  # fmt: skip


def quantized() -> None:
    """States in codes, whose arrays end where their blocks do."""
    for number, call in enumerate(quantized_states()):
        if max(p.size for p in call.lists[0]) < 10_000 and number % 3 == 0:
            lists, scales = (
                [[x if x is None else x.copy() for x in one] for one in every] for every in (call.lists, call.scales)
            )
            host.apply(
                call.programs[0], lists[0], lists[1], lists[2:], groups=call.rows, step=call.step, scales=scales,
                chunk=[0, 256, 1024][number % 5 % 3], stochastic_rounding=call.stochastic_rounding,
            )  # fmt: skip


if __name__ == "__main__":
    main()
