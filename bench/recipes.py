"""Small versions of the recipes with tuned rules: `python -m bench.recipes gpt translation --rules powersign,adamw`.

Each recipe trains a small network on a text that this package has. Every rule is tuned alike: its learning rate is the
best of the decades from 1e-4 to 1, then of their neighbours on a lattice of three rates a decade, further as long as
the best lies at an edge. Tuning has a seed of its own and looks at the validation data; then come --seeds trainings
with other seeds, of which the table has mean and 95 % interval. Validation data are all that these recipes have, so the
rates were chosen on what is reported.

--rules are names or texts, with commas between them, or @FILE. With --out DIR every training is kept there, and the
same command goes on from them.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import mean
from typing import Any, Final

from nos_search.cli.prove import split
from nos_search.train.evaluate import half_width

ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = ROOT / "python" / "nos_search" / "data"
TUNING_SEED: Final = 1000
_DECADES: Final = range(-12, 1, 3)  # lattice numbers k of the rates 10^(k / 3)


def _read(name: str) -> str:
    with lzma.open(DATA / name, "rt", encoding="utf-8") as file:
        return file.read()


def _gpt_data(folder: Path) -> list[str]:
    (folder / "text").write_text(_read("kjv_text.txt.xz"), encoding="utf-8")
    return [str(folder / "text")]


def _translation_data(folder: Path) -> list[str]:
    pairs = [line.split("\t") for line in _read("kjv_rv1909_pairs.txt.xz").strip().split("\n")]
    names = []
    for part, some in (("train", pairs[300:]), ("valid", pairs[:300])):
        for side, language in enumerate(("en", "es")):
            path = folder / f"{part}.{language}"
            path.write_text("\n".join(pair[side] for pair in some) + "\n", encoding="utf-8")
            names.append(str(path))
    return names


@dataclass(frozen=True)
class Recipe:
    """A recipe in its small version: what makes its data, its options, and the figures that its table has. Rules are
    tuned for the least validation loss."""

    data: Callable[[Path], list[str]]
    options: str
    figures: tuple[str, ...]


RECIPES: Final = {
    "gpt": Recipe(
        _gpt_data,
        "--depth 2 --width 96 --heads 3 --context 96 --batch-size 16 --epochs 2 --epoch-steps 200 --warmup 30"
        " --clip-norm 1",
        ("validation_loss", "bits_per_byte"),
    ),
    "translation": Recipe(
        _translation_data,
        "--depth 2 --width 96 --heads 3 --vocabulary 1000 --batch-size 1500 --longest 100 --epochs 4 --beam 1"
        " --warmup 30 --clip-norm 1",
        ("validation_loss", "bleu"),
    ),
}


def _finished(path: Path) -> dict[str, Any] | None:
    """Returns the result of a training that is over. A recipe writes its result after every epoch."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if found["diverged"] or len(found["history"]) == found["options"]["epochs"] else None


@dataclass(frozen=True)
class Trainings:
    """All trainings of a recipe, each of which is done once and kept in a folder of its own."""

    name: str
    data: list[str]
    folder: Path
    jobs: int

    def train(self, rule: str, wanted: Iterable[tuple[int, int]]) -> list[dict[str, float] | None]:
        """Returns the last figures of a training for each rate, by its lattice number, and seed; None where the loss
        was not finite."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda each: self._one(rule, *each), wanted))

    def _one(self, rule: str, rate: int, seed: int) -> dict[str, float] | None:
        mark = blake2b(f"{rule} {RECIPES[self.name].options}".encode(), digest_size=6).hexdigest()
        out = self.folder / self.name / f"{mark}-{rate}-{seed}"
        result = out / "result.json"
        found = _finished(result)
        if found is None:
            command = [
                sys.executable, str(ROOT / "examples" / "recipes" / f"{self.name}.py"), *self.data,
                *RECIPES[self.name].options.split(), "--rule", rule, "--lr", repr(10 ** (rate / 3)),
                "--seed", str(seed), "--device", "cpu", "--out", str(out), "--resume",
            ]  # fmt: skip
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            found = _finished(result)
            if found is None:
                raise SystemExit(f"{' '.join(command)}\nended with status {ended.returncode}:\n{ended.stderr[-2000:]}")
        last = found["history"][-1] if found["history"] else {}
        figures = {name: last.get(name, math.nan) for name in RECIPES[self.name].figures}
        return None if found["diverged"] or not all(map(math.isfinite, figures.values())) else figures

    def tune(self, rule: str) -> int:
        """Returns the lattice number of the rate with the least loss."""
        losses: dict[int, float] = {}

        def look(rates: Iterable[int]) -> int:
            new = [rate for rate in rates if rate not in losses]
            for rate, found in zip(new, self.train(rule, [(rate, TUNING_SEED) for rate in new]), strict=True):
                losses[rate] = math.inf if found is None else found["validation_loss"]
            return min(losses, key=lambda rate: (losses[rate], rate))

        best, before = look(_DECADES), None
        while best != before:
            before, best = best, look([best - 1, best + 1])
        return best


def compare(trainings: Trainings, rules: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Tunes and trains all rules, and returns a row for each."""
    rows = []
    for rule in rules:
        rate = trainings.tune(rule)
        found = trainings.train(rule, [(rate, seed) for seed in range(seeds)])
        good = [each for each in found if each is not None]
        rows.append({
            "rule": rule, "lr": 10 ** (rate / 3), "diverged": len(found) - len(good),
            **{name: [each[name] for each in good] for name in RECIPES[trainings.name].figures},
        })  # fmt: skip
        print(f"{trainings.name}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def as_table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, the least loss first."""

    def shown(values: Sequence[float]) -> str:
        half = half_width(values)
        return f"{mean(values):.4g}" + ("" if half is None else f" ± {half:.2g}")

    figures = RECIPES[name].figures
    lines = [f"| rule | --lr | {' | '.join(figures)} |", f"|{'---|' * (2 + len(figures))}"]
    for row in sorted(rows, key=lambda row: mean(row["validation_loss"]) if row["validation_loss"] else math.inf):
        cells = [shown(row[figure]) if row[figure] else "diverged" for figure in figures]
        lines.append(f"| {row['rule'].replace('|', chr(92) + '|')} | {row['lr']:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recipes", description=__doc__)
    parser.add_argument("recipes", nargs="+", choices=tuple(RECIPES), metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--rules", default="adamw,powersign,addsign", metavar="A,B")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trainings at once")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the trainings there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args(argv)
    if options.seeds < 1 or options.jobs < 1:
        parser.error(f"--seeds {options.seeds} --jobs {options.jobs}: both must be at least 1")
    rules = [rule for rule in split(options.rules) if rule]
    everything = {}
    for name in options.recipes:
        with ExitStack() as stack:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = options.out or temporary
            texts = folder.resolve() / name / "texts"  # a training that goes on wants them where they were
            texts.mkdir(parents=True, exist_ok=True)
            trainings = Trainings(name, RECIPES[name].data(texts), folder.resolve(), options.jobs)
            everything[name] = compare(trainings, rules, options.seeds)
        print(f"{name}.py {RECIPES[name].options}\n\n{as_table(name, everything[name])}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
