"""Writes docs/performance.md, its figure and the table in README.md from a record: python -m bench.render RECORD.json

With --out PAGE.md it writes that page and a figure beside it instead, and leaves README.md as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from . import harness, memory, optim_page, plot, tables
from . import record as rec
from .gpu import page as gpu_page
from .loop import BATCH

_ROOT: Final = Path(__file__).resolve().parents[1]
_DOCS: Final = _ROOT / "docs" / "performance.md"
_README: Final = _ROOT / "README.md"
_BEGIN: Final = "<!-- table written by `make bench` -->\n"
_END: Final = "<!-- end of table -->\n"

INTRO: Final = f"""\
One step of an update rule on the CPU, against everything else that can run it. `make bench` measures and writes this
page (`python -m bench.run --help` for less); [bench/rules.py](../bench/rules.py) has the rules,
[bench/sizes.py](../bench/sizes.py) the sizes, [bench/peers](../bench/peers) the contenders.

**How.** All contenders of a cell run in one process, in turn (A B C A B C ...), on the same tensors, with the same
number of threads. Every ratio is the median over rounds of the ratio within a round; rounds during which other
processes used more than {harness.MAX_FOREIGN} cores are dropped ({tables.NOISY} marks a cell that had no quiet ones).
The **limit** is a compiled C++ pass that reads and writes the same arrays as the rule with one operation for each
written array, by one thread or by all, whichever is faster: 100 % means memory speed. **Hand-fused** is the rule as a
vectorised C++ loop with the same functions and the same bits: what a code generator could reach. Peers are favoured
where there is a choice: their step-dependent scalars are computed beforehand, and torch.compile has them as constants.
"""
_MACHINE: Final = (
    "cpu",
    "cores",
    "caches",
    "memory_gb",
    "system",
    "isa",
    "threads",
    "python",
    "nos_ext",
    "native_flags",
)


def _machine(record: dict[str, Any]) -> str:
    machine = dict(record["machine"])
    packages = machine.pop("packages", {})
    rows = [[key.replace("_", " "), _plain(machine.get(key))] for key in _MACHINE]
    rows += [["packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)]]
    rows += [["measured", f"{machine.get('date')}, commit {machine.get('commit')}, {record.get('seconds', 0):.0f} s"]]
    return tables.table(["", ""], rows)


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _update(record: dict[str, Any], figure: str | None) -> list[str]:
    out = ["## One step", tables.score(record)]
    out += ["Time of the fastest peer / time of the engine, and which peer that is:", tables.against_peers(record)]
    out += ["Part of the limit that the engine reaches (in brackets: the fastest hand-fused loop):"]
    out += [tables.against_limit(record)]
    if figure:
        out += [f"![part of the limit per rule and size]({figure})"]
    out += ["### Where a peer is faster", tables.behind(record)]
    out += [
        "### Bandwidth of the limit, GB/s",
        "From the caches below a million elements or so.",
        tables.bandwidths(record),
    ]
    return out


def sections(record: dict[str, Any], figure: str | None) -> list[str]:
    """The page in paragraphs; suites that the record lacks leave no trace."""
    out = ["# Performance", "<!-- written by `make bench` (bench/render.py); do not edit -->", INTRO, _machine(record)]
    if any(rec.cells(record)):
        out += _update(record, figure)
    if any(rec.cells(record, "overhead")):
        out += ["## Overhead of a call", "Microseconds for a step on tensors of 16 elements (time / engine's time)."]
        out += [tables.contenders(record, "overhead", lambda c: f"{c['rule']}, {c['size']}", "tensors")]
    if any(rec.cells(record, "latency")):
        out += [
            "## From a new rule to its first step",
            "Microseconds; the text differs each time, so nothing is cached.",
        ]
        out += [tables.contenders(record, "latency", lambda c: f"{c['rule']}, {c['operations']} instructions", "rule")]
    if any("torch.compile" in c["contenders"] for c in rec.cells(record)):
        out += ["The same with torch.compile:", tables.compile_times(record)]
    if any(rec.cells(record, "loop")):
        out += ["## In a training loop"]
        out += [
            f"Microseconds of a step after forward and backward of a ConvNet on {BATCH} images, so with cold caches."
        ]
        out += [tables.contenders(record, "loop", lambda c: c["rule"], "rule")]
    out += optim_page.section(record)
    out += optim_page.reductions(record)
    if any(rec.cells(record, "population")):
        out += ["## Many candidates in one call", tables.population(record)]
    if any(rec.cells(record, "states")):
        out += [
            "## Smaller states",
            "AdamW on 10 tensors of 1024 x 1024, on one thread: `state_dtype`, and peers with 8-bit states.",
        ]
        out += [tables.states(record)]
    if any("threads" in cell for cell in rec.cells(record, "states")):
        out += [
            "`HostOptimizer` writes float32 master weights and bfloat16 parameters; torch's AdamW has float32 ones.",
            tables.host_steps(record),
        ]
    if record.get("memory"):
        out += ["## Memory", f"Beyond the tensors, over {memory.STEPS} steps on {memory.SIZE}."]
        out += [tables.memory(record)]
    out += gpu_page.committed()
    if any(rec.cells(record)):
        out += ["## All times", "Microseconds (time / engine's time); the engine with the middle half of its samples."]
        out += [tables.all_times(record), "### Missing", tables.missing(record)]
    return out


def page(record: dict[str, Any], figure: str | None) -> str:
    return "\n\n".join(x.strip() for x in sections(record, figure)) + "\n"


def render(record: dict[str, Any], out: Path) -> list[Path]:
    """Writes the page and the figure beside it; returns what was written."""
    written = [out]
    figure = plot.figure_of(record)
    if figure:
        written.append(out.with_suffix(".svg"))
        written[1].write_bytes(figure.render("svg"))
    out.write_text(page(record, out.stem + ".svg" if figure else None))
    return written


def with_headline(readme: str, record: dict[str, Any]) -> str:
    """The text of README.md with the table of this record in the place of the one that is there."""
    before, _, rest = readme.partition(_BEGIN)
    _, found, after = rest.partition(_END)
    if not found:
        raise ValueError(f"README.md has no place for the table: a line {_BEGIN!r} and after it {_END!r}")
    machine = record["machine"]
    words = f"Measured on {machine['cpu']}, {machine['threads']} threads, {machine['date']}."
    return f"{before}{_BEGIN}\n{tables.headline(record)}\n\n{words}\n\n{_END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.render", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="default: docs/performance.md, and README.md, too")
    options = parser.parse_args(argv)
    try:
        record = rec.load(options.record)
        written = render(record, options.out or _DOCS)
        if options.out is None:
            _README.write_text(with_headline(_README.read_text(), record))
            written.append(_README)
        print(*written, sep="\n")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
