"""Owns the run of rules over the battery: each at many learning rates and on many trials at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import nos_ext
from nos_ext import Program

from ..gate.crowds import reduces
from ..gate.screen import with_rate_tensor
from ..space.group import Array
from .problems import BATTERY, STEPS, Problem, Trials, last_steps

RATES: Final = tuple(float(10.0 ** (k / 2)) for k in range(-10, 4))  # 1e-5 to 30, two in a decade
PASSED: Final = 0.9  # of the trials


@dataclass(frozen=True)
class Diagnosis:
    """What became of a rule on one problem: `solved` is the share of trials that came to the goal at the best learning
    rate, which is `lr`. `passed` says whether these are 90 % or more, and `rates` at how many of RATES they are."""

    kind: str
    level: str
    solved: float
    lr: float
    passed: bool
    rates: int


def diagnose(
    rule: nos_ext.Rule,
    *,
    trials: int = 100,
    seed: int = 0,
    problems: Sequence[Problem] = BATTERY,
) -> list[Diagnosis]:
    """Runs a rule over the problems. Equal seeds give equal trials to every rule.

    Args:
        rule: a rule as a graph, such as `program.rule`, whose only hyperparameter without a default is lr.
        trials: how many starts, and draws of noise, of each problem.
        seed: of the trials.
    """
    program = with_rate_tensor(rule)
    found = []
    for number, problem in enumerate(problems):
        shares = solved(program, problem.trials(trials, seed=1000 * seed + number), problem.goal, seed=seed)
        best = int(np.argmax(shares))
        found.append(
            Diagnosis(
                problem.kind,
                problem.level,
                float(shares[best]),
                RATES[best],
                bool(shares[best] >= PASSED),
                int((shares >= PASSED).sum()),
            )
        )
    return found


def solved(program: Program, trials: Trials, goal: float, *, seed: int) -> Array:
    """Returns for each rate, (rates,), the share of trials whose loss, averaged over the last steps, is at most `goal`
    times the first."""
    x = np.repeat(trials.start[None], len(RATES), axis=0)
    step_of = _apart if reduces(program) else _together
    move = step_of(program, x, seed)
    left = np.zeros(x.shape[:2])
    last = last_steps(STEPS)
    with np.errstate(all="ignore"):
        for step in range(1, STEPS + 1):
            move(trials.gradient(x, step), step)
            if step in last:
                left += trials.loss(x, step) / len(last)
        # A loss that is not a number is above every goal.
        return np.asarray((left <= goal * trials.first).mean(axis=1))


_Move = Callable[[Array, int], None]


def _together(program: Program, x: Array, seed: int) -> _Move:
    """Moves rules whose elements do not meet: all rates and trials are one tensor."""
    states = nos_ext.init_state(program, [x])
    states[program.state_names[0]][0][...] = np.array(RATES, np.float32)[:, None, None]

    def move(g: Array, step: int) -> None:
        nos_ext.apply_rule(program, [x], [g], states, lr=0.0, step=step, total_steps=STEPS, seed=seed)

    return move


def _apart(program: Program, x: Array, seed: int) -> _Move:
    """Moves rules with reductions: a trial at a rate is a tensor of its own, and a slice of a population."""
    count = x.shape[0] * x.shape[1]
    programs = [program] * count
    flat = x.reshape(count, -1)
    states: Any = nos_ext.init_population_state(programs, [flat])
    states[0][0].reshape(x.shape)[...] = np.array(RATES, np.float32)[:, None, None]

    def move(g: Array, step: int) -> None:
        grads = np.ascontiguousarray(g).reshape(count, -1)
        nos_ext.apply_population(programs, [flat], [grads], states, lr=0.0, step=step, total_steps=STEPS, seed=seed)

    return move
