"""The probe's questions about time: of the host, of small tensors, of captured steps; and about bandwidth."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import torch

import nos_ext
from nos_ext.optim import library

from .ask import RULE, NeedsDevice, Wrong, graph_of, lists, microseconds, stepper, table, times, wait


def host_time_of_a_step(device: str) -> str:
    """Unchanged tensors: what the host pays before the device has work."""
    rows = []
    for count in (1, 10, 148, 1000, 5000):
        step = stepper(*lists([256] * (count if device == "cuda" else min(count, 10)), device))
        rows.append(f"{count} tensors: {times(step, device, 50)}")
    return table(rows)


def moved_gradients(device: str) -> str:
    """Gradients at new addresses in every step, as after every backward pass: the tables go up again."""
    rows = []
    for count in (10, 148, 1000):
        p, g, m = lists([256] * (count if device == "cuda" else 10), device)
        others = [[x.clone() for x in g] for _ in range(2)]
        program, turn = nos_ext.compile_rule(RULE), [0]

        def step(p: Any = p, m: Any = m, others: Any = others, program: Any = program, turn: Any = turn) -> None:
            turn[0] ^= 1
            nos_ext.apply_rule(program, p, others[turn[0]], [m], lr=1e-6)

        rows.append(f"{count} tensors: {times(step, device, 50)}")
    return table(rows)


def many_lists_of_tensors(device: str) -> str:
    """One rule for each of many lists in turn, as an optimizer per layer: is a plan kept for each?"""
    program, rows = nos_ext.compile_rule(RULE), []
    for count in (8, 9, 148):
        every = [lists([4096], device) for _ in range(count)]

        def step(every: Any = every) -> None:
            for p, g, m in every:
                nos_ext.apply_rule(program, p, g, [m], lr=1e-6)

        done, _ = microseconds(step, device, 20 if device == "cuda" else 1)
        rows.append(f"{count} lists: {done / count:.1f} us a list")
    return table(rows)


def compiled_tier(device: str) -> str:
    """Interpreter against the kernel of NVRTC, by the size of tensors."""
    if nos_ext._C.jit_status().startswith("off"):
        return nos_ext._C.jit_status()
    rows = []
    sizes = {"5000 x 256": [256] * 5000, "1 x 256": [256], "10 x 1e5": [100_000] * 10, "1 x 2^24": [1 << 24]}
    for name, every in sizes.items():
        step = stepper(*lists(every if device == "cuda" else [256], device))
        for mode in ("never", "always"):
            nos_ext.set_jit(mode)
            rows.append(f"{name}, {mode}: {times(step, device, 50)}")
    return table(rows)


def captured_replay(device: str) -> str:
    """What a replay costs beside a plain step: its prologue computes the scalars on the device, a block a rule."""
    if device != "cuda":
        raise NeedsDevice
    rows = []
    for name, every in {"1 x 256": [256], "10 x 1e5": [100_000] * 10}.items():
        p, g, m = lists(every, device)
        rows.append(f"{name}, step: {times(stepper(p, g, m), device)}")
        step = nos_ext.CapturedStep(RULE, p, g, [m], lr=1e-6)
        rows.append(f"{name}, replay: {times(graph_of(step, device).replay, device)}")
    rules = [nos_ext.compile_rule("adam * cd")] * 1000  # two powers and a cosine of the step
    p, g, m, v = ([torch.ones(1000, 64, device=device)] for _ in range(4))
    population = nos_ext.CapturedStep(rules, p, g, [m, v], lr=1e-6, total_steps=1000)
    rows.append(f"1000 rules of 64 elements, replay: {times(graph_of(population, device).replay, device, 50)}")
    return table(rows)


def copy_time(p: torch.Tensor, g: torch.Tensor, device: str) -> float:
    return microseconds(lambda: p.copy_(g), device, 20)[0]


def share(copy: float, step: float) -> str:
    """The step moves five tensors (reads p, g, m; writes p, m), the copy two."""
    return f"{2.5 * copy / step:.2f} of copy, {step:.1f} us"


def sizes_and_dtypes(device: str, *powers: int) -> Iterator[tuple[str, int, torch.dtype]]:
    for dtype in (torch.float32, torch.bfloat16):
        for power in powers:
            yield f"2^{power} {str(dtype).removeprefix('torch.')}", 1 << (power if device == "cuda" else 10), dtype


def share_of_copy(device: str) -> str:
    """Bytes moved a second, by dtype and number of elements, as a part of torch's copy_ at the same size."""
    rows = []
    for name, n, dtype in sizes_and_dtypes(device, 20, 24, 27):
        p, g, m = lists([n], device, dtype)
        step, _ = microseconds(stepper(p, g, m), device, 20)
        rows.append(f"{name}: {share(copy_time(p[0], g[0], device), step)}")
    return table(rows)


def small_states(device: str) -> str:
    """A step of AdamW with states in float32, bfloat16 and int8, which are read and written with fewer bytes."""
    program = nos_ext.compile_rule(library.adamw)
    rows = []
    for power in (20, 26):
        n = 1 << (power if device == "cuda" else 10)
        p, g = (torch.randn(n, device=device) for _ in range(2))
        for dtype, bytes_moved in ((None, 28), ("bfloat16", 20), ("int8", 16)):
            state = nos_ext.init_state(program, [p], state_dtype=dtype)

            def step(state: Any = state, dtype: Any = dtype, p: Any = p, g: Any = g) -> None:
                rounding = "states" if dtype else False
                nos_ext.apply_rule(program, [p], [g], state, lr=1e-6, stochastic_rounding=rounding)

            us, _ = microseconds(step, device, 20)
            rows.append(f"2^{power} {dtype or 'float32'}: {us:.1f} us, {bytes_moved * n / us * 1e-3:.0f} GB/s")
    return table(rows)


CHUNKS: Final = (4096, 8192, 16384, 32768, 65536, 262144)


def share_of_copy_by_chunk(device: str) -> str:
    """The most elements that a block works on ($NOS_CUDA_MOST_CHUNK; 32768 unasked): does another number do better?"""
    rows, kept = [], []
    before = os.environ.get("NOS_CUDA_MOST_CHUNK")
    try:
        for name, n, dtype in sizes_and_dtypes(device, 24, 27):
            for chunk in CHUNKS:
                os.environ["NOS_CUDA_MOST_CHUNK"] = str(chunk)
                kept.append(lists([n], device, dtype))  # tables are made once for tensors: others for every chunk
                p, g, m = kept[-1]
                step, _ = microseconds(stepper(p, g, m), device, 20)
                rows.append(f"{name}, {chunk}: {share(copy_time(p[0], g[0], device), step)}")
            kept.clear()
    finally:
        del os.environ["NOS_CUDA_MOST_CHUNK"]
        if before is not None:
            os.environ["NOS_CUDA_MOST_CHUNK"] = before
    return table(rows)


METRICS: Final = {
    "gpu__time_duration.sum": "time",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue slots",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps",
    "launch__registers_per_thread": "registers",
    **{
        f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio": said
        for reason, said in {
            "long_scoreboard": "stalls: memory",
            "short_scoreboard": "shared memory",
            "imc_miss": "constants",
            "no_instruction": "instruction fetch",
            "branch_resolve": "branches",
            "wait": "fixed latency",
            "math_pipe_throttle": "math pipe",
            "mio_throttle": "memory queue",
            "lg_throttle": "global memory queue",
            "dispatch_stall": "dispatch",
            "not_selected": "other warps",
        }.items()
    },
}


def one_launch(device: str) -> None:
    """A step of 2^26 elements in float32, and one in bfloat16, for the profiler."""
    nos_ext.set_jit("never")
    for _, n, dtype in sizes_and_dtypes(device, 26):
        stepper(*lists([n], device, dtype))()
        wait(device)


def profile_rows(text: str) -> list[str]:
    """A line per launch of what `ncu --csv` printed."""
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    launches: dict[str, list[str]] = {}
    for row in csv.DictReader(lines[head:]):
        name = METRICS.get(row["Metric Name"])
        if name:
            value = f"{name} {row['Metric Value']} {row['Metric Unit'].replace('inst', '')}".strip()
            launches.setdefault(row["ID"], []).append(value)
    return [", ".join(values) for values in launches.values()]


def stalls(device: str) -> str:
    """What the interpreter's warps wait for at full bandwidth, float32 and bfloat16: ncu's counters."""
    if device != "cuda":
        raise NeedsDevice
    if not shutil.which("ncu"):
        return "ncu is not on PATH"
    code = "from bench.gpu.fast import one_launch; one_launch('cuda')"
    command = ["ncu", "--clock-control", "none", "--csv", "-k", "regex:interpreter", "--metrics", ",".join(METRICS)]
    out = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)
    rows = profile_rows(out.stdout)
    if out.returncode or not rows:
        raise Wrong(f"ncu: exit status {out.returncode}" + table((out.stdout + out.stderr).splitlines()[-8:]))
    return table(rows)
