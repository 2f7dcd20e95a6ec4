"""Small versions of the recipes with tuned rules: `python -m bench.recipes gpt translation --rules powersign,adamw`.

`gpt` and `translation` train a small network on a text that this package has. `fashion` trains a small Wide ResNet of
cifar10.py on Fashion-MNIST, which --data-dir has, or Debian's dataset-fashion-mnist.

Every rule is tuned alike: its learning rate is the best of the decades from 1e-4 to 1, then of their neighbours on a
lattice of three rates a decade, further as long as the best lies at an edge. All else is as the rule's name gives it.
Tuning has a seed of its own and looks at the validation data; then come --seeds trainings with other seeds, of which
the table has mean and 95 % interval. `gpt` and `translation` have no other data than those of validation, so their
rates were chosen on what is reported. `fashion` chooses by the accuracy on 5000 held-out images after an epoch of
5000 images, and reports that on the test images after an epoch of all 55,000 others.

--rules are names or texts, with commas between them, or @FILE, which the table names by the file. With --out DIR every
training is kept there, and the same command goes on from them. --json keeps a record of everything, --show prints its
tables again, and --write examples/recipes/README.md puts them between the markers of that page.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import mean
from typing import Any, Final

from nos_search.cli.prove import split
from nos_search.errors import UsageError
from nos_search.train.evaluate import half_width

from . import machine, recipe_data
from .recipe_data import Data

ROOT: Final = Path(__file__).resolve().parents[1]
FORMAT: Final = 1  # of the record
BEGIN, END = "<!-- bench.recipes:begin -->", "<!-- bench.recipes:end -->"  # what is between them is a record's page
TUNING_SEED: Final = 1000
_DECADES: Final = range(-12, 1, 3)  # lattice numbers k of the rates 10^(k / 3)


@dataclass(frozen=True)
class Recipe:
    """A recipe in its small version: its file, what makes its data, its options, the figures that its table has, by the
    first of which the rows are ordered, and the figure by which a rate is chosen."""

    file: str
    data: Callable[[Path, Path | None], Data]
    options: str
    figures: tuple[str, ...]
    chosen_by: str
    larger_is_better: bool = False

    def cost(self, figure: float) -> float:
        """Returns a number that is the less the better a figure is."""
        return -figure if self.larger_is_better else figure


RECIPES: Final = {
    "gpt": Recipe(
        "gpt.py",
        recipe_data.text,
        "--depth 2 --width 96 --heads 3 --context 96 --batch-size 16 --epochs 4 --epoch-steps 200 --warmup 30"
        " --clip-norm 1",
        ("validation_loss", "bits_per_byte"),
        "validation_loss",
    ),
    "translation": Recipe(
        "translation.py",
        recipe_data.pairs,
        "--depth 1 --width 64 --heads 2 --vocabulary 1000 --batch-size 1500 --longest 100 --epochs 2 --beam 1"
        " --warmup 30 --clip-norm 1",
        ("validation_loss", "bleu"),
        "validation_loss",
    ),
    "fashion": Recipe(
        "cifar10.py",
        recipe_data.clothes,
        "--net wrn-10-1 --batch-size 64 --epochs 1 --hold-out 5000",
        ("test_accuracy", "accuracy"),
        "accuracy",
        larger_is_better=True,
    ),
}


def _finished(path: Path, figures: Iterable[str]) -> dict[str, Any] | None:
    """Returns the result of a training that is over. A recipe writes its result after every epoch, and some of them
    once more with the figures of the end."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    last = {**found, **(found["history"] or [{}])[-1]}
    over = len(found["history"]) == found["options"]["epochs"] and all(figure in last for figure in figures)
    return last if found["diverged"] or over else None


@dataclass(frozen=True)
class Trainings:
    """All trainings of a recipe, each of which is done once and kept in a folder of its own."""

    name: str
    data: Data
    folder: Path
    jobs: int

    def train(self, rule: str, wanted: Iterable[tuple[int, int]]) -> list[dict[str, float] | None]:
        """Returns the last figures of a training for each rate, by its lattice number, and seed; None where the loss
        was not finite."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda each: self._one(rule, *each), wanted))

    def _one(self, rule: str, rate: int, seed: int) -> dict[str, float] | None:
        recipe = RECIPES[self.name]
        figures = {*recipe.figures, recipe.chosen_by}
        mark = blake2b(f"{rule} {recipe.options}".encode(), digest_size=6).hexdigest()
        out = self.folder / self.name / f"{mark}-{rate}-{seed}"
        result = out / "result.json"
        last = _finished(result, figures)
        if last is None:
            data = self.data.tuning if seed == TUNING_SEED else self.data.reported
            command = [
                sys.executable, str(ROOT / "examples" / "recipes" / recipe.file), *data, *recipe.options.split(),
                "--rule", rule, "--lr", repr(10 ** (rate / 3)), "--seed", str(seed), "--device", "cpu",
                "--out", str(out), "--resume",
            ]  # fmt: skip
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            last = _finished(result, figures)
            if last is None:
                raise SystemExit(f"{' '.join(command)}\nended with status {ended.returncode}:\n{ended.stderr[-2000:]}")
        found = {name: last.get(name, math.nan) for name in figures}
        return None if last["diverged"] or not all(map(math.isfinite, found.values())) else found

    def tune(self, rule: str) -> int:
        """Returns the lattice number of the best rate."""
        recipe = RECIPES[self.name]
        costs: dict[int, float] = {}

        def look(rates: Iterable[int]) -> int:
            new = [rate for rate in rates if rate not in costs]
            for rate, found in zip(new, self.train(rule, [(rate, TUNING_SEED) for rate in new]), strict=True):
                costs[rate] = math.inf if found is None else recipe.cost(found[recipe.chosen_by])
            return min(costs, key=lambda rate: (costs[rate], rate))

        best, before = look(_DECADES), None
        while best != before:
            before, best = best, look([best - 1, best + 1])
        return best


def read_rules(given: str) -> dict[str, str]:
    """Returns the texts of --rules by the names that tables have for them."""
    words = [word for word in split(given) if word]
    files = {word: Path(word[1:]) for word in words if word.startswith("@")}
    return {
        files[word].stem if word in files else word: files[word].read_text("utf-8").strip() if word in files else word
        for word in words
    }


def compare(trainings: Trainings, rules: Mapping[str, str], seeds: int) -> list[dict[str, Any]]:
    """Tunes and trains all rules, and returns a row for each."""
    rows = []
    for name, text in rules.items():
        rate = trainings.tune(text)
        found = trainings.train(text, [(rate, seed) for seed in range(seeds)])
        good = [each for each in found if each is not None]
        rows.append({
            "rule": name, "text": text, "lr": 10 ** (rate / 3), "diverged": len(found) - len(good),
            **{figure: [each[figure] for each in good] for figure in RECIPES[trainings.name].figures},
        })  # fmt: skip
        print(f"{trainings.name}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def as_table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, the best first."""
    recipe = RECIPES[name]
    first, *_ = recipe.figures

    def shown(values: Sequence[float]) -> str:
        half = half_width(values)
        return f"{mean(values):.4g}" + ("" if half is None else f" ± {half:.2g}")

    lines = [f"| rule | --lr | {' | '.join(recipe.figures)} |", f"|{'---|' * (2 + len(recipe.figures))}"]
    for row in sorted(rows, key=lambda row: recipe.cost(mean(row[first])) if row[first] else math.inf):
        cells = [shown(row[figure]) if row[figure] else "diverged" for figure in recipe.figures]
        if row[first] and row["diverged"]:
            cells[0] += f", {row['diverged']} diverged"
        lines.append(f"| {row['rule'].replace('|', chr(92) + '|')} | {row['lr']:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def load(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"--show {path} is no record of this bench: {error}") from None
    if record.get("format") != FORMAT or "recipes" not in record:
        raise UsageError(f"--show {path} is no record of this bench in format {FORMAT}; record it again with --json")
    return record


def page(record: dict[str, Any]) -> str:
    """What the recipes' page has of a record: the machine, then each recipe's options and table."""
    by = record["machine"]
    cores = f"{by['cores']} cores" if by["cores"] != 1 else "a core"
    torch, date = by["packages"]["torch"], by["date"].split()[0]
    out = [f"{by['cpu']} ({by['isa']}), {cores}, torch {torch}, {date}; {record['seeds']} seeds each."]
    for name, part in record["recipes"].items():
        out += [f"`{part['command']}`", as_table(name, part["rows"])]
    return "\n\n".join(out)


def write(path: Path, text: str) -> None:
    """Replaces what is between the markers of a page."""
    head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not begin or END not in rest:
        raise UsageError(f"--write {path}: it has no {BEGIN} and {END} behind it; put them where the tables belong")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Makes the record of these recipes, and prints each table when it is there."""
    rules = read_rules(options.rules)
    record: dict[str, Any] = {"format": FORMAT, "machine": machine.describe(1), "seeds": options.seeds, "recipes": {}}
    for name in options.recipes:
        with ExitStack() as stack:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = (options.out or temporary).resolve()
            place = folder / name / "data"  # a training that goes on wants them where they were
            place.mkdir(parents=True, exist_ok=True)
            data = RECIPES[name].data(place, options.data_dir)
            rows = compare(Trainings(name, data, folder, options.jobs), rules, options.seeds)
        record["recipes"][name] = {"command": f"{RECIPES[name].file} {RECIPES[name].options}", "rows": rows}
        print(f"{record['recipes'][name]['command']}\n\n{as_table(name, rows)}\n", flush=True)
    return record


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--rules", default="adamw,powersign,addsign", metavar="A,B")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trainings at once")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the four idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the trainings there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a record of all figures")
    parser.add_argument("--show", type=Path, metavar="FILE", help="train nothing, and print the tables of a record")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of a page")
    options = parser.parse_args(argv)
    if bool(options.recipes) == bool(options.show) or not {*options.recipes} <= {*RECIPES}:
        parser.error(f"RECIPE {' '.join(options.recipes)}: pass some of {', '.join(RECIPES)}, or --show FILE alone")
    if options.seeds < 1 or options.jobs < 1:
        parser.error(f"--seeds {options.seeds} --jobs {options.jobs}: both must be at least 1")
    try:
        record = load(options.show) if options.show else measure(options)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if options.show:
            print(page(record))
        if options.write:
            write(options.write, page(record))
    except (OSError, UsageError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
