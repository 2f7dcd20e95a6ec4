"""Owns the bench of prove's verdicts: how often they err on scores that are only noise, and how often they see a
difference that is there.

Scores are drawn, nothing is trained. A rule and its baselines have the same mean in every cell; seeds move all of them
together, and each by noise of its own with a deviation of 1. The kinds of noise are:

- normal: independent in every cell;
- heavy: the same from Student's t distribution with three degrees of freedom, which now and then is far off;
- correlated: half of the variance of a contender's seed is the same in all cells;
- tuning: normal, and each contender has besides, in each cell, an advantage that all seeds share, with a deviation of
  0.5: luck in tuning.

A rule that equals one baseline and is far better than the others is the hardest case for "better against every one".
Power is that of the normal kind, for a rule that is better in every cell by so many seed deviations, and for one that
is so in one family alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..bounds import check_count
from ..prove.verdict import BETTER, WORSE, Array, Judgement, Scores, judge
from ..train.seeds import check_seed
from .base import BenchResult

KINDS: Final = ("normal", "heavy", "correlated", "tuning")
EFFECTS: Final = (0.5, 1.0, 2.0)
_FAR: Final = 5.0  # seed deviations
_SCALE: Final = 0.01  # a seed deviation, of a score


@dataclass(frozen=True)
class Design:
    """How many there are of what; the rule comes on top of the baselines."""

    families: int = 5
    cells: int = 12  # of each family
    baselines: int = 5
    seeds: int = 5

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"family {k // self.cells}" for k in range(self.families * self.cells))


def arguments(parser: argparse.ArgumentParser) -> None:
    design = Design()
    parser.add_argument(
        "--cases", type=int, default=1000, metavar="N", help="simulated proofs of a kind (default 1000)"
    )
    for name, what in (
        ("families", "of tasks"),
        ("cells", "task, size and horizon, of each family"),
        ("baselines", "tuned optimizers"),
        ("seeds", "trainings that count"),
    ):
        default = getattr(design, name)
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default {default})")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides the noise (default 1)")


def run(options: argparse.Namespace, *, note: Callable[[str], None]) -> BenchResult:
    for option in ("cases", "families", "cells", "baselines", "seeds"):
        check_count(f"--{option}", getattr(options, option))
    stream = np.random.default_rng(check_seed(options.seed))
    design = Design(options.families, options.cells, options.baselines, options.seeds)
    result = BenchResult(
        f"{options.cases} simulated proofs of each kind: {design.families} families of {design.cells} cells, "
        f"{design.baselines} baselines, {design.seeds} seeds",
        ["scores", "better, %", "worse, %", "a family better, %", "a family worse, %"],
        notes=["of a rule that equals its baselines every verdict but 'no difference shown' is false"],
    )

    def add(name: str, kind: str, effect: float, families: int, *, far: bool = False) -> None:
        note(f"judging {options.cases} of: {name}")
        cases = [simulated(design, kind, effect, families, stream, far=far) for _ in range(options.cases)]
        found = rates([judge_one(case) for case in cases])
        result.rows.append([name, *(f"{100 * value:.1f}" for value in found.values())])
        result.figures[name] = found

    for kind in KINDS:
        add(f"equal to all, {kind}", kind, 0.0, 0)
    for kind in KINDS if design.baselines > 1 else ():
        add(f"equal to one, {kind}", kind, 0.0, 0, far=True)
    for effect in EFFECTS:
        add(f"better by {effect:g} in all cells", "normal", effect, design.families)
    for effect in EFFECTS:
        add(f"better by {effect:g} in one family", "normal", effect, 1)
    return result


def simulated(
    design: Design, kind: str, effect: float, families: int, stream: np.random.Generator, *, far: bool = False
) -> Scores:
    """Draws the scores of a rule, which is contender 0 and better by `effect` in so many families, and of its
    baselines. With `far` all of these but the first are far worse."""
    shape = (1 + design.baselines, design.families * design.cells, design.seeds)
    values: Array = stream.normal(size=shape)
    if kind == "heavy":
        values = stream.standard_t(3, size=shape) / math.sqrt(3)
    elif kind == "correlated":
        values = math.sqrt(0.5) * values + math.sqrt(0.5) * stream.normal(size=(shape[0], 1, shape[2]))
    elif kind == "tuning":
        values = values + stream.normal(scale=0.5, size=(*shape[:2], 1))
    values = values + stream.normal(size=(1, *shape[1:]))  # what a seed does to all of them
    values[0, : families * design.cells] += effect
    if far:
        values[2:] -= _FAR
    scores: Array = 0.5 + _SCALE * values
    return Scores(scores, np.zeros(shape, bool), design.names, design.names)


def judge_one(scores: Scores) -> Judgement:
    """Judges contender 0 against all others."""
    (found,) = judge(scores, [0], range(1, len(scores.values)))
    return found


def rates(found: list[Judgement]) -> dict[str, Any]:
    """Returns the shares of cases with each verdict, over all and in any family."""
    return {
        "better": np.mean([each.verdict == BETTER for each in found]).item(),
        "worse": np.mean([each.verdict == WORSE for each in found]).item(),
        "family_better": np.mean([any(f.verdict == BETTER for f in each.families.values()) for each in found]).item(),
        "family_worse": np.mean([any(f.verdict == WORSE for f in each.families.values()) for each in found]).item(),
    }
