"""Owns the score of a rule: train the task's child network with it and return the validation accuracy.

The paper's protocol: a sweep over learning rates in powers of ten, a short training each; then a longer training from
fresh weights at the best one; the reward is its final validation accuracy. A loss that is not finite stops a training
at once; if that happens at every learning rate of the sweep, or in the longer training, the rule has diverged and its
reward is 0.

Parameters are plain tensors that `nos_ext.apply_rule` updates in place. All randomness (weights, order of examples,
noise in rules) comes from the seed, so equal seeds give equal bits on one machine with one number of torch threads;
the caller sets that number (the in-process executor does). Sweep and longer training start from the same weights and
see the same order of examples, so a rate that the sweep found stable is not undone by other luck.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F

import nos_ext

from ..errors import UsageError
from ..rules import Rule
from ..task import Split, Task

LEARNING_RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)  # as in the paper's replicas
_LOSS_LIMIT = 1e4  # cross-entropy in nats; a guess at random costs log(classes), about 2.3
_EVAL_BATCH = 1000
_MIN_RUNG = 5  # steps; accuracies after fewer are mostly chance

Sweep = Literal["halving", "full"]
SWEEPS: tuple[Sweep, ...] = ("halving", "full")


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose, independent for different names."""
    text = ":".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Protocol:
    """How a rule is scored.

    sweep: "full" trains every learning rate for all its steps (the paper). "halving" stops the worse half of them after
    a quarter and again after half of the steps, but never before 5 steps; on digits it finds the same rate for 96 % of
    rules and seeds.
    """

    sweep: Sweep = "halving"
    learning_rates: tuple[float, ...] = LEARNING_RATES

    def __post_init__(self) -> None:
        if self.sweep not in SWEEPS:
            raise UsageError(f"--sweep {self.sweep!r} is not known; choose one of: {', '.join(SWEEPS)}")
        if not self.learning_rates or not all(0 < lr < math.inf for lr in self.learning_rates):
            raise UsageError(f"learning rates {self.learning_rates} must be positive numbers, at least one")


@dataclass(frozen=True)
class Outcome:
    """What became of a rule.

    reward: final validation accuracy in [0, 1]; 0.0 when diverged. lr: the best of the sweep, None if all diverged.
    curve: JSON-able: "sweep" rows {lr, steps, accuracy}, "steps", "loss" and "accuracy" of the longer training.
    test: accuracy on the test split, only when it was asked for.
    """

    status: Literal["done", "diverged"]
    reward: float
    lr: float | None
    curve: dict[str, Any] = field(default_factory=dict)
    test: float | None = None


class Training:
    """One training of one rule at one learning rate, taken in pieces."""

    def __init__(self, rule: Rule, task: Task, *, lr: float, total_steps: int, seed: int) -> None:
        self.rule, self.task, self.lr, self.total_steps = rule, task, lr, total_steps
        self.model = task.model()
        self.weights = self.model.init(torch.Generator().manual_seed(derive_seed(seed, "weights")))
        self._raw = [param.detach() for param in self.weights.params]  # same memory, outside of autograd
        self.state = nos_ext.init_state(rule.program, self._raw)
        self._rule_seed = derive_seed(seed, "rule")
        self._shuffle = torch.Generator().manual_seed(derive_seed(seed, "order"))
        self._order = torch.empty(0, dtype=torch.long)
        self.step = 0
        self.loss = math.nan  # mean over the last call of run(), nats
        self.alive = True

    def _batch(self) -> torch.Tensor:
        size = min(self.task.budget.batch_size, len(self.task.train))
        if len(self._order) < size:
            self._order = torch.randperm(len(self.task.train), generator=self._shuffle)
        index, self._order = self._order[:size], self._order[size:]
        return index

    def run(self, until: int) -> bool:
        """Trains up to step `until`; False, for good, once the loss is not finite or beyond any use."""
        total, first = 0.0, self.step
        while self.alive and self.step < until:
            index = self._batch()
            logits = self.model.logits(self.weights, self.task.train.x[index], training=True)
            loss = F.cross_entropy(logits, self.task.train.y[index])
            value = float(loss.detach())
            if not value < _LOSS_LIMIT:  # NaN too
                self.alive = False
                break
            grads = torch.autograd.grad(loss, self.weights.params)
            self.step += 1
            nos_ext.apply_rule(
                self.rule.program,
                self._raw,
                [grad.contiguous() for grad in grads],
                self.state,
                lr=self.lr,
                step=self.step,
                total_steps=self.total_steps,
                seed=self._rule_seed,
            )
            total += value
        self.loss = total / max(1, self.step - first)
        return self.alive

    @torch.no_grad()
    def accuracy(self, split: Split) -> float:
        """Share of `split` classified right, in [0, 1]; 0.0, and the end of the training, if its loss is not finite."""
        if not self.alive:
            return 0.0
        right, loss = 0, 0.0
        for start in range(0, len(split), _EVAL_BATCH):
            y = split.y[start : start + _EVAL_BATCH]
            logits = self.model.logits(self.weights, split.x[start : start + _EVAL_BATCH], training=False)
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(1) == y).sum())
        self.alive = math.isfinite(loss)
        return right / len(split) if self.alive else 0.0


def _sweep(rule: Rule, task: Task, protocol: Protocol, seed: int) -> tuple[float | None, list[dict[str, Any]]]:
    """The best learning rate by validation accuracy (then lower loss, then lower rate), and one row per rate."""
    steps = task.budget.sweep_steps
    rungs = [stop for stop in (steps // 4, steps // 2) if stop >= _MIN_RUNG and protocol.sweep == "halving"]
    stops = [*rungs, steps]
    running = [Training(rule, task, lr=lr, total_steps=steps, seed=seed) for lr in sorted(protocol.learning_rates)]
    rows = {training.lr: {"lr": training.lr, "steps": 0, "accuracy": 0.0} for training in running}
    for stop in stops:
        scored = []
        for training in running:
            training.run(stop)
            accuracy = training.accuracy(task.val)
            rows[training.lr].update(steps=training.step, accuracy=accuracy)
            if training.alive:
                scored.append((-accuracy, training.loss, training.lr, training))
        scored.sort(key=lambda entry: entry[:3])
        running = (
            [entry[3] for entry in scored[: (len(scored) + 1) // 2]]
            if stop != stops[-1]
            else [entry[3] for entry in scored[:1]]
        )
    return (running[0].lr if running else None), list(rows.values())


def score(rule: Rule, task: Task, protocol: Protocol, *, seed: int, test: bool = False) -> Outcome:
    """Scores one rule on one task by the protocol. Deterministic in (rule, task, protocol, seed)."""
    lr, rows = _sweep(rule, task, protocol, seed)
    if lr is None:
        return Outcome("diverged", 0.0, None, {"sweep": rows})
    steps = task.budget.train_steps
    training = Training(rule, task, lr=lr, total_steps=steps, seed=seed)
    every = max(1, min(steps, len(task.train) // task.budget.batch_size))
    curve: dict[str, Any] = {"sweep": rows, "steps": [], "loss": [], "accuracy": []}
    for stop in [*range(every, steps, every), steps]:
        training.run(stop)
        accuracy = training.accuracy(task.val)
        if not training.alive:
            return Outcome("diverged", 0.0, lr, curve)
        curve["steps"].append(training.step)
        curve["loss"].append(training.loss)
        curve["accuracy"].append(accuracy)
    return Outcome("done", curve["accuracy"][-1], lr, curve, training.accuracy(task.test) if test else None)
