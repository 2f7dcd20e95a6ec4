"""What the compiled tier costs, without a GPU: python -m bench.gpu.nvrtc [--arch 90] [--json FILE]

Per rule: milliseconds from the program to CUDA C++, of NVRTC's compilation, and of a hit in the disk cache; registers
and spills of the kernel. Random rules are a search's: 20 and 40 instructions, medians of several.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nos_ext
from nos_ext import _C

from .. import tables
from ..rules import RULES

_T = TypeVar("_T")
RANDOM = 5  # rules of each length


def timed(f: Callable[[], _T]) -> tuple[float, _T]:
    begin = time.perf_counter()
    out = f()
    return (time.perf_counter() - begin) * 1e3, out


def random_text(seed: int, length: int) -> str:
    """A rule of about `length` instructions, each on the value before and another one."""
    rng = random.Random(seed)
    unary = ["exp(-abs({}))", "tanh({})", "log(1 + abs({}))", "sqrt(abs({}))", "sign({})", "square({})"]
    lines, names = [], ["p", "g", "m"]
    for i in range(max(1, (length - 4) // 2)):
        a, b = names[-1], rng.choice(names)
        operand = rng.choice(unary).format(b) if rng.random() < 0.5 else f"{rng.uniform(0.1, 2):.3f} * {b}"
        lines.append(f"    x{i} = {a} {rng.choice('+-*')} {operand}")
        names.append(f"x{i}")
    body = "\n".join(lines)
    return f"def r(p, g, m, *, lr):\n    m = 0.9 * m + 0.1 * g\n{body}\n    return p - lr * {names[-1]}, m\n"


def cases() -> dict[str, list[nos_ext.Program]]:
    named = {n: [nos_ext.compile_rule(RULES[n].text)] for n in ("powersign", "adam", "lion", "random15", "random40")}
    for length in (20, 40):
        texts = [random_text(100 * length + i, length) for i in range(RANDOM)]
        named[f"random, {length}"] = [nos_ext.compile_rule(t) for t in texts]
    return named


def from_disk(program: nos_ext.Program, dtypes: list[str], arch: int) -> float:
    """Milliseconds of a hit, in a process that has not compiled the rule."""
    code = (
        "import sys, time, nos_ext; from nos_ext import _C\n"
        "p = nos_ext.Program.from_bytes(bytes.fromhex(sys.argv[1])); d = sys.argv[2].split(','); a = int(sys.argv[3])\n"
        "_C.jit_status(); t = time.perf_counter(); found = _C.jit_build(p, d, a)\n"
        "print((time.perf_counter() - t) * 1e3 if found[1] else 'nan')"
    )
    arguments = [program.bytecode.hex(), ",".join(dtypes), str(arch)]
    out = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(out.stdout)


def rows(arch: int) -> list[dict[str, Any]]:
    out = []
    for name, programs in cases().items():
        found = []
        for program in programs:
            dtypes = ["float32"] * (2 + len(program.state_names))
            source_ms, source = timed(lambda program=program, dtypes=dtypes: _C.cuda_source(program, dtypes))  # type: ignore[misc]
            nvrtc_ms, (cubin, log) = timed(lambda source=source: _C.nvrtc_compile(source, arch))  # type: ignore[misc]
            _C.jit_build(program, dtypes, arch)  # into the cache
            spilled = sum(map(int, re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", log)))
            # before 13.5 NVRTC does not say
            registers = max(map(float, re.findall(r"Used (\d+) registers", log)), default=math.nan)
            found.append((source_ms, nvrtc_ms, from_disk(program, dtypes, arch), registers, spilled, len(cubin)))
        columns = [statistics.median(x) for x in zip(*found, strict=True)]
        row = dict(zip(("source_ms", "nvrtc_ms", "disk_ms", "registers", "spilled", "cubin"), columns, strict=True))
        out.append({"rule": name, "instructions": statistics.median(len(p) for p in programs)} | row)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.nvrtc", description=__doc__)
    parser.add_argument("--arch", type=int, default=90)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    status = _C.jit_status()
    if status.startswith("off"):
        print(status, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="nos-jit-") as cache:
        os.environ["NOS_JIT_CACHE"] = cache
        first = nos_ext.compile_rule("g")
        first_ms, _ = timed(lambda: _C.nvrtc_compile(_C.cuda_source(first, ["float32"] * 2), options.arch))
        found = rows(options.arch)
    version = re.sub(r" \(.*", "", status)
    print(f"{version}, sm_{options.arch}; the first compilation of a process: {first_ms:.0f} ms")
    head = ["rule", "instructions", "text ms", "NVRTC ms", "from disk ms", "registers", "spilled bytes", "cubin bytes"]
    lines = []
    for r in found:
        registers = "" if math.isnan(r["registers"]) else f"{r['registers']:.0f}"
        times = [f"{r['source_ms']:.2f}", f"{r['nvrtc_ms']:.0f}", f"{r['disk_ms']:.2f}"]
        sizes = [registers, f"{r['spilled']:.0f}", f"{r['cubin']:.0f}"]
        lines.append([r["rule"], f"{r['instructions']:.0f}", *times, *sizes])
    print(tables.table(head, lines))
    if options.json:
        options.json.write_text(json.dumps({"nvrtc": version, "first_ms": first_ms, "rows": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
