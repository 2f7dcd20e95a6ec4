"""Runs the benches and writes one JSON file: python -m bench.run [--quick] [--json OUT]; method in harness.py."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from . import latency, loop, machine, memory, optim, overhead, population, reductions, states, update
from .harness import FULL, QUICK, Effort
from .rules import RULES, BenchRule
from .sizes import SIZES, Size

SCHEMA: Final = 1
SUITES: Final = ("update", "overhead", "latency", "loop", "optim", "reductions", "population", "memory", "states")
QUICK_SIZES: Final = ("1e4", "1e6", "convnet", "many")
QUICK_COMPILES: Final = {("powersign", "convnet"), ("powersign", "1e6")}
_BUILD: Final = Path(__file__).resolve().parents[1] / "build" / "bench"


def _names(known: Iterable[str], default: Sequence[str]) -> Any:
    """An argparse type: comma-separated names of a vocabulary."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names or list(default)

    return parse


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--only", type=_names(RULES, list(RULES)), metavar="RULE,...", help=", ".join(RULES))
    parser.add_argument("--sizes", type=_names(SIZES, list(SIZES)), metavar="SIZE,...", help=", ".join(SIZES))
    parser.add_argument("--suites", type=_names(SUITES, SUITES), metavar="SUITE,...", help=", ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help="few sizes, few samples: under three minutes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every contender")
    parser.add_argument("--json", type=Path, metavar="OUT", help="default: build/bench/run.json or quick.json")
    out = parser.parse_args(argv)
    out.only = out.only or list(RULES)
    out.sizes = out.sizes or list(QUICK_SIZES if out.quick else SIZES)
    out.suites = out.suites or list(SUITES)
    out.json = out.json or _BUILD / ("quick.json" if out.quick else "run.json")
    return out


class Record:
    """The JSON file, rewritten after every cell so that a run that is stopped leaves what it has."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._data = path, head
        self._start = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, suite: str, row: dict[str, Any]) -> None:
        self._data.setdefault(suite, []).append(row)
        self.write()
        print(f"{time.perf_counter() - self._start:7.1f} s  {suite:10} {line(row)}", file=sys.stderr, flush=True)

    def write(self) -> None:
        self._data["seconds"] = round(time.perf_counter() - self._start, 1)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._data, indent=1) + "\n")
        part.replace(self._path)


def line(row: dict[str, Any]) -> str:
    """A row in one line for the terminal."""
    label = " ".join(str(row[key]) for key in ("rule", "size", "scene", "contender") if key in row)
    if "skipped" in row:
        return f"{label}: skipped, {row['skipped']}"
    if "peak" in row:
        return f"{label:34} +{row['growth'] / 1e6:.1f} MB, peak +{row['peak'] / 1e6:.1f} MB"
    if "state_bytes" in row:
        kept = ", ".join(f"{name} {size:.2f}" for name, size in row["state_bytes"].items())
        label += f" (bytes of state per parameter: {kept})"
    times = " | ".join(f"{name} {r['us']:.1f}" for name, r in row["contenders"].items())
    if "threads" in row:  # steps on the host, of which the ratio matters
        times += "".join(f" = {r['ratio']:.3f} of it" for name, r in row["contenders"].items() if name != row["base"])
    return f"{label:34} us: {times}{'  (noisy)' if row['noisy'] else ''}"


def run(options: argparse.Namespace) -> Path:
    """All suites that were asked for; returns the path of the record."""
    torch.set_num_threads(options.threads)
    effort: Effort = QUICK if options.quick else FULL
    config = {"quick": options.quick, "rules": options.only, "sizes": options.sizes, "suites": options.suites}
    record = Record(options.json, {"schema": SCHEMA, "machine": machine.describe(options.threads), "config": config})
    record.write()

    def compiles(rule: BenchRule, size: Size) -> bool:
        return not options.quick or (rule.name, size.name) in QUICK_COMPILES

    pairs = memory.QUICK_PAIRS if options.quick else memory.PAIRS
    suites = {
        "update": lambda: update.run(options.only, options.sizes, effort, options.threads, compiles),
        "overhead": lambda: overhead.run(effort, options.threads),
        "latency": lambda: latency.run(effort),
        "loop": lambda: loop.run(effort, options.threads, compiles=not options.quick),
        "optim": lambda: optim.run(effort, options.threads),
        "reductions": lambda: reductions.run(options.sizes, effort, options.threads),
        "population": lambda: population.run(effort),
        "memory": lambda: memory.run(pairs, options.threads),
        "states": lambda: states.run(effort),
    }
    for suite in options.suites:
        for row in suites[suite]():
            record.add(suite, row)
    return Path(options.json)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="nos-bench-") as cache:
        # An empty cache makes the compile times of torch.compile those of a new rule; one thread avoids its worker
        # processes, which would run beside the contenders.
        os.environ.update(TORCHINDUCTOR_CACHE_DIR=cache, TORCHINDUCTOR_COMPILE_THREADS="1")
        print(run(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
