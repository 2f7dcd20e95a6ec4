"""One suite of the GPU benches into the record: python -m bench.gpu.run SUITE --out DIR --seconds N [--device cpu]

Each suite is a process of its own, so that one that fails or runs out of time leaves what the others have written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

import nos_ext

from . import suites

SCHEMA: Final = 1
SUITES: Final = ("main", "reductions", "compile", "profile")


def machine(device: str) -> dict[str, Any]:
    out: dict[str, Any] = {"device": device, "torch": torch.__version__, "python": platform.python_version()}
    if device != "cpu":
        p = torch.cuda.get_device_properties(0)
        out |= {"device": p.name, "sms": p.multi_processor_count, "memory_gb": round(p.total_memory / 1e9, 1)}
        out |= {"l2_mb": round(p.L2_cache_size / 1e6, 1), "cuda": torch.version.cuda}
    return out | {
        "nos_ext": nos_ext.__version__,
        "build": {k: str(v) for k, v in nos_ext.build_info()["cuda"].items()},
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


class Record:
    """The JSON file, rewritten after every row."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self._data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"schema": SCHEMA}
        self._data |= head
        path.parent.mkdir(parents=True, exist_ok=True)

    def set(self, name: str, value: Any) -> None:
        self._data[name] = value
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._data, indent=1) + "\n")
        part.replace(self._path)

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.set(name, [*(self._data.get(name) or []), row])
        label = " ".join(str(row[k]) for k in ("scene", "rule", "dtype", "candidates") if k in row)
        times = row.get("contenders", {})
        text = " | ".join(f"{n} {r['us']:.1f}" for n, r in times.items()) if times else row.get("skipped", "")
        print(f"{name:10} {label:32} us: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.run", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json")
    parser.add_argument("--seconds", type=float, default=180, help="time for all of the suite")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run on tiny tensors")
    options = parser.parse_args(argv)
    device, begin = options.device, time.perf_counter()
    if device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; --device cpu makes a dry run", file=sys.stderr)
        return 1

    if device == "cpu":
        torch.set_num_threads(1)  # the dry run shares its machine

    def left() -> float:
        return float(options.seconds) - (time.perf_counter() - begin)

    if options.suite == "profile":
        suites.for_profiler(device)
        return 0
    record = Record(options.out / "results.json", {"machine": machine(device)})
    if options.suite == "main":
        record.set("copy", suites.copy_ceiling(device))
        record.set("first_update", suites.first_update(device))
        for row in suites.population(device, left):
            record.add("population", row)
        for row in suites.cells(device, 4.0 if device == "cuda" else 0.01, left):
            record.add("cells", row)
    elif options.suite == "reductions":
        for row in suites.reductions(device, left):
            record.add("reductions", row)
    else:
        for row in suites.compiled_peers(device, left):
            record.add("compiled", row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
