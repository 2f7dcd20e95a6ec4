"""Memory beyond the tensors themselves: growth of the process over three steps on ResNet-50, and its peak meanwhile.

Each contender runs in a process of its own (`python -m bench.memory RULE CONTENDER THREADS`), since an allocator keeps
what it once got.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

STEPS: Final = 3
SIZE: Final = "resnet50"
_ROOT: Final = Path(__file__).resolve().parents[1]
PAIRS: Final = (
    ("powersign", "nos_ext"),
    ("powersign", "eager"),
    ("powersign", "_foreach"),
    ("adam", "nos_ext"),
    ("adam", "optim for-loop"),
    ("adam", "optim foreach"),
    ("adam", "optim fused"),
)
QUICK_PAIRS: Final = (("powersign", "nos_ext"), ("powersign", "_foreach"))


def _status(key: str) -> int:
    """Bytes, from /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * int(next(line.split()[1] for line in file if line.startswith(key)))


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def measure_here(rule: str, contender: str, threads: int) -> dict[str, Any]:
    """The figures of one contender, in this process."""
    import torch

    from .case import Arena
    from .peers import CONTENDERS
    from .rules import RULES
    from .sizes import SIZES

    torch.set_num_threads(threads)
    case = Arena(SIZES[SIZE]).case(RULES[rule], threads=threads)
    run = CONTENDERS[contender](case).run
    with torch.no_grad():
        case.grads[0].add(1)  # starts torch's threads, whose stacks are nobody's
    before = _status("VmRSS")
    _reset_peak()
    run(STEPS)
    after, peak = _status("VmRSS"), _status("VmHWM")
    return {"rule": rule, "contender": contender, "growth": after - before, "peak": peak - before}


def run(pairs: tuple[tuple[str, str], ...], threads: int) -> Iterator[dict[str, Any]]:
    for rule, contender in pairs:
        command = [sys.executable, "-m", "bench.memory", rule, contender, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            yield {"rule": rule, "contender": contender, "skipped": last}
        else:
            yield json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
