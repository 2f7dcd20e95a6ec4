"""Owns the reward of a rule: the task's child network is trained with it and scored on validation data.

The paper's protocol is a sweep over learning rates in powers of ten with a short training each, then a longer training
from fresh weights at the best one; the reward is its final score (in the paper the validation accuracy; here what the
task says, task/score.py). A loss that is not finite stops a training at once; if that happens at every learning rate of
the sweep, or in the longer training, the rule has diverged and its reward is 0.

Sweep and longer training start from the same weights and see the same order of examples, so a rate that the sweep found
stable is not undone by other luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import UsageError, choose
from ..rules import CompiledRule
from ..task.base import Task
from ..task.score import ACCURACY, DIVERGED, Measured
from .allocator import keep_freed_memory
from .decay import Decay, check_decay
from .engine import Engine, check_engine, kind_of
from .graph import GraphStack, NoRoomError
from .native import NativeTraining
from .stack import Stack, pays
from .training import Cohort, Singles, Training

LEARNING_RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)  # as in the paper's replicas
_MIN_RUNG = 5  # steps; scores after fewer are mostly chance
_POINTS = 5  # of a curve shorter than an epoch

_FINE = (0.25, 0.5, 2.0, 4.0)  # around the best rate of the decades

Sweep = Literal["fine", "halving", "full"]
SWEEPS: tuple[Sweep, ...] = ("fine", "halving", "full")


@dataclass(frozen=True)
class ScoringProtocol:
    """A protocol says how a rule is scored.

    The sweep "full" trains every learning rate for all its steps, as the paper does. "halving" stops the worse half of
    them after a quarter and again after half of the steps, but never before 5 steps; on digits it finds the same rate
    for 96 % of rules and seeds. "fine" does the same, and then trains a quarter, half, twice and four times the best of
    them for all steps. With `stack` the rates of the sweep train as one stacked network; None does so where that is
    faster. `engine` is what trains, train/engine.py. Own kernels train `threads` rates side by side, which changes no
    bit. The learning rate of the longer training falls by `decay` (train/decay.py); the sweep's stay as they are.
    """

    sweep: Sweep = "fine"
    learning_rates: tuple[float, ...] = LEARNING_RATES
    stack: bool | None = None
    engine: Engine = "auto"
    threads: int = 1
    decay: Decay = "none"

    def __post_init__(self) -> None:
        check_engine(self.engine)
        check_decay(self.decay)
        if self.sweep not in SWEEPS:
            raise choose("--sweep", self.sweep, SWEEPS)
        if not self.learning_rates or not all(0 < lr < math.inf for lr in self.learning_rates):
            raise UsageError(f"learning rates {self.learning_rates} must be positive numbers, at least one")


@dataclass(frozen=True)
class Outcome:
    """An outcome says what became of a rule.

    `reward` is the final score on validation data in [0, 1] (task/score.py), and 0.0 when it diverged. `lr` is the best
    rate of the sweep, or None if all diverged. `test` is the score on the test split, if it was asked for.

    `curve` is fit for JSON. It has "sweep", with rows {lr, steps, accuracy}, and of the longer training "steps", "loss"
    (the mean training loss up to there, in nats), "accuracy" and "val_loss" (of validation). Where the accuracy is not
    the task's score both have "score", too.
    """

    status: Literal["done", "diverged"]
    reward: float
    lr: float | None
    curve: dict[str, Any] = field(default_factory=dict)
    test: float | None = None


def _cohort(
    rule: CompiledRule,
    task: Task,
    protocol: ScoringProtocol,
    lrs: Sequence[float],
    steps: int,
    seed: int,
    kind: type[Training],
) -> Cohort:
    stacked = pays(task) if protocol.stack is None else protocol.stack
    rules = [rule] * len(lrs)
    if stacked and len(lrs) > 1 and not issubclass(kind, NativeTraining):
        if task.train.x.is_cuda and not task.augment:  # a graph takes its examples from the split by number
            with suppress(NoRoomError):
                return GraphStack(rules, task, lrs=lrs, total_steps=steps, seed=seed)
        return Stack(rules, task, lrs=lrs, total_steps=steps, seed=seed)
    threads = protocol.threads if issubclass(kind, NativeTraining) else 1
    return Singles.start(rules, task, lrs=lrs, total_steps=steps, seed=seed, kind=kind, threads=threads)


def _figures(task: Task, measured: Measured) -> dict[str, float]:
    """Returns what a curve keeps of how well a child guesses: the accuracy, and the score where that is another
    number."""
    figures = {"accuracy": measured.accuracy}
    return figures if task.score == ACCURACY else {**figures, "score": task.reward(measured)}


def best_rate(
    rule: CompiledRule, task: Task, protocol: ScoringProtocol, *, seed: int, kind: type[Training] | None = None
) -> tuple[float | None, list[dict[str, Any]]]:
    """Returns the best learning rate by the score on validation data (then by lower training loss since the last rung,
    then the lower rate), and one row per rate. `kind` is the class that trains, in the place of the protocol's."""
    kind = kind or kind_of(protocol.engine, task)
    steps = task.budget.sweep_steps
    rungs = [stop for stop in (steps // 4, steps // 2) if stop >= _MIN_RUNG and protocol.sweep != "full"]
    rows: dict[float, dict[str, Any]] = {}

    def start(lrs: Sequence[float]) -> Cohort:
        return _cohort(rule, task, protocol, lrs, steps, seed, kind)

    best = _race(start(sorted(protocol.learning_rates)), [*rungs, steps], task, rows)
    if best is not None and protocol.sweep == "fine":
        around = start([best[2] * factor for factor in _FINE])
        if rungs:
            around.run(rungs[-1])  # so that their losses at the end, too, are those since the last rung
        near = _race(around, [steps], task, rows)
        best = best if near is None else min(best, near)
    return None if best is None else best[2], [rows[lr] for lr in sorted(rows)]


def _race(
    running: Cohort, stops: Sequence[int], task: Task, rows: dict[float, dict[str, Any]]
) -> tuple[float, float, float] | None:
    """Trains a cohort from stop to stop, and leaves the worse half behind at each but the last. Returns the best as
    (-score, loss, learning rate), or None when all have diverged. `rows` gets one row for each rate."""
    rows.update({lr: {"lr": lr, "steps": 0, **_figures(task, DIVERGED)} for lr in running.lrs})
    for stop in stops:
        running.run(stop)
        measured = running.measure(task.val)
        scores = [task.reward(each) for each in measured]
        for lr, taken, each in zip(running.lrs, running.steps(), measured, strict=True):
            rows[lr].update(steps=taken, **_figures(task, each))
        scored = sorted(
            (-reward, loss, lr, k)
            for k, (reward, loss, lr, alive) in enumerate(
                zip(scores, running.losses(), running.lrs, running.alive(), strict=True)
            )
            if alive
        )
        if not scored:
            return None
        if stop != stops[-1]:
            running = running.keep([entry[3] for entry in scored[: (len(scored) + 1) // 2]])
    return scored[0][:3]


def train(
    rule: CompiledRule,
    task: Task,
    *,
    lr: float,
    seed: int,
    test: bool = False,
    kind: type[Training] = Training,
    decay: Decay = "none",
    points: int | None = None,
) -> Outcome:
    """Makes the longer training alone, at a learning rate that begins at `lr`. The outcome is a function of the other
    arguments. Its curve has so many `points`; None is one for each epoch, or five of a training that is shorter."""
    keep_freed_memory()
    steps = task.budget.train_steps
    training = kind(rule, task, lr=lr, total_steps=steps, seed=seed, decay=decay)
    every = task.epoch if points is None and task.epoch <= steps else -(-steps // (points or _POINTS))
    curve: dict[str, Any] = {name: [] for name in ("steps", "loss", *_figures(task, DIVERGED), "val_loss")}
    for stop in [*range(every, steps, every), steps]:
        training.run(stop)
        measured = training.measure(task.val)
        if not training.alive:
            return Outcome("diverged", 0.0, lr, curve)
        point = {"steps": training.step, "loss": training.loss, "val_loss": measured.loss, **_figures(task, measured)}
        for name, value in point.items():
            curve[name].append(value)
    return Outcome("done", task.reward(measured), lr, curve, task.reward(training.measure(task.test)) if test else None)


def score(
    rule: CompiledRule,
    task: Task,
    protocol: ScoringProtocol,
    *,
    seed: int,
    test: bool = False,
    kind: type[Training] | None = None,
) -> Outcome:
    """Scores one rule on one task by the protocol. The outcome is a function of (rule, task, protocol, seed).

    `kind` is the class that trains, in the place of the protocol's: one that measures or replaces a part of it.
    """
    keep_freed_memory()
    kind = kind or kind_of(protocol.engine, task)
    lr, rows = best_rate(rule, task, protocol, seed=seed, kind=kind)
    if lr is None:
        return Outcome("diverged", 0.0, None, {"sweep": rows})
    outcome = train(rule, task, lr=lr, seed=seed, test=test, kind=kind, decay=protocol.decay)
    return Outcome(outcome.status, outcome.reward, lr, {"sweep": rows, **outcome.curve}, outcome.test)
