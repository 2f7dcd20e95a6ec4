"""Compares two records cell by cell: python -m bench.compare A.json B.json [--above 1.05]

Times of two runs differ by what the machine did meanwhile, so the column to read is the last: the engine's time
relative to the limit measured in the same rounds, B / A. Above 1 the engine has become slower.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: python bench/compare.py A B
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "bench"

from . import record as rec
from .peers import ENGINE

# suite -> what names a cell, and the contender that is compared
SUITES = {
    "update": (("rule", "size"), ENGINE),
    "overhead": (("rule", "size"), ENGINE),
    "latency": (("rule",), "text -> Program"),
    "loop": (("rule",), ENGINE),
    "optim": (("scene",), "RuleOptimizer"),
    "population": (("scene",), "apply_population"),
    "states": (("scene",), "int8"),
}
_HEAD = ("suite", "cell", "A us", "B us", "B/A", "B/A to the limit")


def rows(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, float, float, float, float | None]]:
    """(suite, cell, time in A, time in B, B/A, B/A relative to the limit) of the cells that both records have."""
    for suite, (keys, name) in SUITES.items():
        before = {tuple(c[k] for k in keys): c for c in rec.cells(a, suite)}
        for cell in rec.cells(b, suite):
            old = before.get(tuple(cell[k] for k in keys))
            if old is None or name not in old["contenders"] or name not in cell["contenders"]:
                continue
            ta, tb = old["contenders"][name]["us"], cell["contenders"][name]["us"]
            la, lb = rec.of_limit(old, name), rec.of_limit(cell, name)
            relative = la / lb if la and lb else None
            yield suite, " ".join(cell[k] for k in keys), ta, tb, tb / ta, relative


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--above", type=float, default=0.0, help="only cells whose last ratio is above this")
    options = parser.parse_args(argv)
    try:
        a, b = rec.load(options.a), rec.load(options.b)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if (x := a["machine"]["cpu"], a["machine"]["threads"]) != (y := b["machine"]["cpu"], b["machine"]["threads"]):
        print(f"the records are from different machines: {x} and {y} threads", file=sys.stderr)
    print("{:<11} {:<36} {:>11} {:>11} {:>6} {:>16}".format(*_HEAD))
    for suite, cell, ta, tb, ratio, relative in rows(a, b):
        if (ratio if relative is None else relative) > options.above:
            last = "" if relative is None else f"{relative:.2f}"
            print(f"{suite:<11} {cell:<36} {ta:>11.2f} {tb:>11.2f} {ratio:>6.2f} {last:>16}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
