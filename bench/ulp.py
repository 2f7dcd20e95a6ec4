"""Error of every unary op over all 2^32 fp32 inputs, and of pow over a stratified sample, through the public API.

    python bench/ulp.py                          every op, every input: about a minute per op and core
    python bench/ulp.py --ops exp,log --stride 97
    python bench/ulp.py --isa avx2               the digests must not depend on the instruction set
    python bench/ulp.py --write docs/numerics.md

The reference is NumPy float64 (long double for pow). One ulp is the spacing of fp32 numbers at the reference value,
2^-149 at least. A NaN, an infinity or a zero that differs from the reference in kind or sign, or a result of the wrong
sign, is a mismatch. An infinite result stands for 2^128. Exit status 1: a bound is exceeded or there is a mismatch.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- ulp:begin -->", "<!-- ulp:end -->"
INPUTS = 1 << 32
BLOCK = 1 << 13  # inputs of one call: the temporaries stay in the cache
TASK = 1 << 25  # span of inputs of one task of the pool
PAIRS = 1 << 26  # sample of pow
PAIRS_TASK = 1 << 19

# op: (bound in ulps, what it should be)
REFERENCE: dict[str, tuple[float, Callable[..., np.ndarray]]] = {
    "neg": (0.0, np.negative),
    "abs": (0.0, np.abs),
    "sign": (0.0, np.sign),
    "floor": (0.0, np.floor),
    "square": (0.5, np.square),
    "sqrt": (0.5, np.sqrt),
    "rsqrt": (0.6, lambda x: 1.0 / np.sqrt(x)),
    "exp": (1.0, np.exp),
    "log": (1.0, np.log),
    "tanh": (1.5, np.tanh),
    "pow": (0.6, np.power),
}


@dataclass
class Tally:
    """What is known of one op so far. `digest` does not depend on the order of the blocks."""

    inputs: int = 0
    ulps: float = 0.0
    where: tuple[float, ...] = ()
    mismatches: int = 0
    mismatch: tuple[float, ...] = ()
    digest: int = 0

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        if other.ulps > self.ulps or not self.where:
            self.ulps, self.where = other.ulps, other.where
        self.mismatches += other.mismatches
        self.mismatch = self.mismatch or other.mismatch
        self.digest = (self.digest + other.digest) % 2**64


def _compare(got: np.ndarray, want: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exponent = np.clip(np.frexp(want)[1] - 1, -126, 127)
    wide = got.astype(want.dtype)
    wide = np.where(np.isinf(got), np.copysign(want.dtype.type(2.0**128), wide), wide)
    error = np.abs(np.ldexp(wide - want, 23 - exponent))
    nan = np.isnan(want)
    mismatch = np.isnan(got) != nan
    mismatch |= ~nan & (np.signbit(got) != np.signbit(want))
    mismatch |= (np.isinf(want) & ~np.isinf(got)) | ((want == 0) & (got != 0))
    over = np.isinf(got) & (np.abs(want) >= 2.0**128)
    return np.where(over | nan | mismatch | np.isinf(want), 0.0, error).astype(np.float64), mismatch


def ulp_errors(got: np.ndarray, want: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of fp32 results in ulps of the reference (float64 or wider), and where they differ in kind or sign."""
    with np.errstate(all="ignore"):
        if want.dtype != np.float64:
            return _compare(got, want)
        # the same for ordinary numbers, five times faster: 1 / ulp from the exponent field
        exponent = (want.view(np.int64) >> 52) & 0x7FF
        np.clip(exponent, 1023 - 126, 1023 + 127, out=exponent)
        error = got - want
        error *= ((2 * 1023 + 23 - exponent) << 52).view(np.float64)
        np.abs(error, out=error)
        doubtful = ~(error < 2.0**20) | (np.signbit(got) != np.signbit(want)) | ((want == 0) & (got != 0))
        mismatch = np.zeros_like(doubtful)
        if doubtful.any():
            error[doubtful], mismatch[doubtful] = _compare(got[doubtful], want[doubtful])
        return error, mismatch


@functools.cache
def _weights() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(1)).integers(0, 2**64, BLOCK, np.uint64) | np.array(1, np.uint64)


def _digest(got: np.ndarray, block: int) -> int:
    nan = np.isnan(got)
    bits = np.where(nan, np.uint32(0x7FC00000), got.view(np.uint32)) if nan.any() else got.view(np.uint32)
    total = int(np.dot(bits.astype(np.uint64), _weights()[: len(bits)]))
    return total * (0x9E3779B97F4A7C15 * (2 * block + 1) % 2**64) % 2**64


def _tally(block: int, got: np.ndarray, want: np.ndarray, *operands: np.ndarray) -> Tally:
    errors, mismatch = ulp_errors(got, want)
    worst = int(np.argmax(errors))
    first = int(np.argmax(mismatch))
    at = tuple(float(x[worst]) for x in operands)
    bad = tuple(float(x[first]) for x in operands) if mismatch[first] else ()
    digest = _digest(got, block)
    return Tally(len(got), float(errors[worst]), at, int(mismatch.sum()), bad, digest)


def unary_task(op: str, start: int, stride: int) -> Tally:
    """The inputs whose bit pattern is a multiple of `stride` in [start, start + TASK)."""
    import nos_ext

    program = nos_ext.compile_rule(f"def f(p, g, *, lr): return {op}(g)")
    total = Tally()
    patterns = range(-(-start // stride) * stride, start + TASK, stride)
    for first in range(0, len(patterns), BLOCK):
        part = patterns[first : first + BLOCK]
        x = np.arange(part.start, part.stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        got = np.empty_like(x)
        nos_ext.apply_rule(program, [got], [x], {}, lr=0.0)
        with np.errstate(all="ignore"):
            want = REFERENCE[op][1](x.astype(np.float64))
        total.add(_tally(part.start // stride, got, want, x))
    return total


ORDINARY = [
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    1.0000001,
    0.99999994,
    4194303.5,
    8388607.0,
    8388607.5,
    16777216.0,
    2147483648.0,
]
EXTREME = [1e-45, 1.1754944e-38, 3.4028235e38, np.inf, np.nan]
SPECIAL = np.array([*ORDINARY, *EXTREME], np.float32)


def pow_sample(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Six strata in turn: any bits; results of all sizes; x next to 1 and huge y; results next to overflow and among
    the subnormals; small integers and halves as y; special values against each other and against any bits."""
    random = np.random.Generator(np.random.PCG64(seed))
    any_bits = random.integers(0, 2**32, (2, n), np.uint32).view(np.float32)
    integers = random.integers(0, 2**31, (4, n))
    unit = random.random((2, n))
    with np.errstate(all="ignore"):
        wide = np.exp2((unit[0] - 0.5) * 250).astype(np.float32)
        log2 = np.log2(wide.astype(np.float64))
        edge = np.where(integers[0] % 2, 127.9 + 0.2 * unit[1], -125 - 26 * unit[1])
        near = 1 + (integers[0] % 2001 - 1000) * np.where(integers[1] % 2, 2.0**-24, 1e-5)
        huge = np.ldexp(1 + unit[1], integers[2] % 40 - 4) * np.where(integers[3] % 2, -1, 1)
        whole = integers[0] % 41 - 20 + 0.5 * (integers[1] % 2)
        signed = np.concatenate([SPECIAL, -SPECIAL])
        special = signed[integers[0] % len(signed)], signed[integers[1] % len(signed)]
        any_x, any_y = integers[2] % 4 == 0, integers[3] % 4 == 0
        special_x, special_y = np.where(any_x, any_bits[0], special[0]), np.where(any_y, any_bits[1], special[1])
        xs = [any_bits[0], wide, near, wide, any_bits[0], special_x]
        ys = [any_bits[1], (unit[1] - 0.5) * 300 / log2, huge, edge / log2, whole, special_y]
        stratum = np.arange(n) % 6
        x, y = np.choose(stratum, xs), np.choose(stratum, ys)
        return x.astype(np.float32), y.astype(np.float32)


def pow_task(task: int) -> Tally:
    import nos_ext

    program = nos_ext.compile_rule("def f(p, g, *, lr): return pow(g, p)")
    total = Tally()
    for block in range(task * (PAIRS_TASK // BLOCK), (task + 1) * (PAIRS_TASK // BLOCK)):
        x, y = pow_sample(BLOCK, block)
        got = y.copy()
        nos_ext.apply_rule(program, [got], [x], {}, lr=0.0)
        with np.errstate(all="ignore"):
            want = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
        total.add(_tally(block, got, want, x, y))
    return total


def measure(pool: ProcessPoolExecutor, op: str, stride: int) -> Tally:
    if op == "pow":
        tasks = [pool.submit(pow_task, block) for block in range(max(1, PAIRS // PAIRS_TASK // stride))]
    else:
        tasks = [pool.submit(unary_task, op, start, stride) for start in range(0, INPUTS, TASK)]
    total = Tally()
    for task in tasks:
        total.add(task.result())
    return total


def _hex(x: float) -> str:
    return re.sub(r"\.?0*p", "p", x.hex())


def table(results: dict[str, Tally]) -> str:
    lines = [
        "| op | inputs | bound (ulp) | max error (ulp) | at | mismatches | digest of all results |",
        "|---|---|---|---|---|---|---|",
    ]
    for op, r in results.items():
        count = f"2^{r.inputs.bit_length() - 1}" if r.inputs.bit_count() == 1 else str(r.inputs)
        count = f"all {count}" if r.inputs == INPUTS else count
        at = ", ".join(map(_hex, r.where)) if r.ulps else ""
        bad = f"{r.mismatches} ({', '.join(map(_hex, r.mismatch))})" if r.mismatches else "0"
        digest = f"`{r.digest:016x}`"
        lines.append(f"| {op} | {count} | {REFERENCE[op][0]:g} | {r.ulps:.4f} | {at} | {bad} | {digest} |")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    page = path.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default=",".join(REFERENCE), help="comma-separated (default: all)")
    parser.add_argument("--stride", type=int, default=1, help="every N-th input only; of pow's sample, a part of 1/N")
    parser.add_argument("--isa", choices=["baseline", "avx2", "avx512"], help="default: the best one of this machine")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    options = parser.parse_args()
    ops = options.ops.split(",")
    if unknown := set(ops) - set(REFERENCE):
        parser.error(f"unknown ops: {', '.join(sorted(unknown))}; known: {', '.join(REFERENCE)}")
    if options.stride < 1:
        parser.error("--stride must be at least 1")
    if options.isa:
        os.environ["NOS_ISA"] = options.isa
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes are the parallelism

    results: dict[str, Tally] = {}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for op in ops:
            begin = time.monotonic()
            results[op] = measure(pool, op, options.stride)
            print(f"{op}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    text = table(results)
    print(text)
    if options.write:
        write(options.write, text)
    return int(any(r.mismatches or r.ulps > REFERENCE[op][0] for op, r in results.items()))


if __name__ == "__main__":
    raise SystemExit(main())
