"""Owns the training of one child, which is taken in pieces, and the group of such trainings that a sweep runs side by
side.

Parameters are plain tensors that `nos_ext.apply_rule` updates in place. All randomness (weights, order of examples,
noise in rules) comes from the seed, so equal seeds give equal bits on one machine with one number of torch threads; the
caller sets that number. A child trains on the device where its task's data are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

import nos_ext

from ..net import Weights
from ..rules import CompiledRule
from ..task.base import IGNORED, Split, Task
from ..task.score import DIVERGED, Measured
from .augment import augmented
from .decay import Decay, factor
from .seeds import derive_seed
from .side import each

LOSS_LIMIT = 1e4  # cross-entropy in nats; a guess at random costs log(classes), about 2.3 for ten
_EVAL_IMAGES, _EVAL_SENTENCES = 500, 250  # examples at a time
_CHECK_EVERY = 16  # steps; a device that computes on its own is asked this often (and after 1, 2, 4, 8 steps)


def cross_entropy(logits: Tensor, y: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns the cross-entropy in nats over the targets that count. `logits` are (..., classes) and `y` is (...).

    Where none counts, the mean is 0 with a gradient of zeros, as in the kernels: a batch that asks nothing teaches
    nothing. torch's own would be 0/0, which ends a training.
    """
    loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction=reduction, ignore_index=IGNORED)
    return torch.where((y == IGNORED).all(), 0.0, loss)


def eval_batch(split: Split) -> int:
    return _EVAL_IMAGES if split.y.dim() == 1 else _EVAL_SENTENCES


def loss_is_due(step: int, device: torch.device) -> bool:
    """Tells whether the loss of this step is looked at. On the CPU, where looking costs nothing, it always is."""
    return device.type == "cpu" or step % _CHECK_EVERY == 0 or (step < _CHECK_EVERY and step & (step - 1) == 0)


def fresh_weights(task: Task, seed: int) -> Weights:
    """Returns the child's first weights, drawn on the CPU so that they are the same for every device."""
    drawn = task.model().init(torch.Generator().manual_seed(derive_seed(seed, "weights")))
    device = task.train.x.device
    dtype = task.train.x.dtype if task.train.x.is_floating_point() else torch.float32
    params = [param.detach().to(device, dtype).requires_grad_() for param in drawn.params]
    return Weights(params, [running.to(device, dtype) for running in drawn.running])


@lru_cache(maxsize=4)
def _first_order(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the first shuffle of `count` examples, and the state of its generator after it. All trainings of a rule
    share it, and on a large task it would cost more than a sweep's steps."""
    shuffle = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=shuffle), shuffle.get_state()


class Batches:
    """This is the order of the examples: every one comes once per epoch, in a new shuffle each time, the same for equal
    seeds."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed
        self._step = 0
        first, state = _first_order(len(task.train), derive_seed(seed, "order"))
        self._order = first.to(task.train.x.device)
        self._shuffle = torch.Generator()
        self._shuffle.set_state(state)

    def next(self, batches: int = 1) -> Tensor:
        """Returns the indices of the next batch, or of several ones, one after the other."""
        size = min(self._task.budget.batch_size, len(self._task.train))
        parts = []
        self._step += batches
        while batches:
            if len(self._order) < size:
                order = torch.randperm(len(self._task.train), generator=self._shuffle)
                self._order = order.to(self._task.train.x.device)
            taken = min(batches, len(self._order) // size)
            parts.append(self._order[: taken * size])
            self._order = self._order[taken * size :]
            batches -= taken
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def examples(self, batches: int = 1) -> tuple[Tensor, Tensor]:
        """Returns the inputs and the targets of the next batch, or of several ones, augmented where the task says
        so."""
        steps, index = range(self._step, self._step + batches), self.next(batches)
        x, y = self._task.train.x[index], self._task.train.y[index]
        if self._task.augment:
            x = augmented(x, mirrors=self._task.mirrors, seed=self._seed, steps=steps)
        return x, y


class Training:
    """One training of one rule at one learning rate, which is taken in pieces.

    `loss` is the mean over the last call of run(), in nats.
    """

    def __init__(
        self, rule: CompiledRule, task: Task, *, lr: float, total_steps: int, seed: int, decay: Decay = "none"
    ) -> None:
        self.rule, self.task, self.lr, self.total_steps = rule, task, lr, total_steps
        self._factor = factor(decay, total_steps)
        self.model = task.model()
        self.weights = fresh_weights(task, seed)
        self._raw = [param.detach() for param in self.weights.params]  # same memory, outside of autograd
        self.state = nos_ext.init_state(rule.program, self._raw)
        self._rule_seed = derive_seed(seed, "rule")
        self._batches = Batches(task, seed)
        self._odd: list[int] | None = None  # parameters whose gradients come in another layout
        self.step = 0
        self.loss = math.nan
        self.alive = True

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        grads = list(torch.autograd.grad(loss, self.weights.params))
        if self._odd is None:
            self._odd = [k for k, (g, p) in enumerate(zip(grads, self._raw, strict=True)) if g.stride() != p.stride()]
        for k in self._odd:
            grads[k] = torch.empty_like(self._raw[k]).copy_(grads[k])
        return grads

    def run(self, until: int) -> bool:
        """Trains up to step `until`. Returns False, for good, once the loss is not finite or beyond any use."""
        first, device = self.step, self.task.train.x.device
        total = 0.0 if device.type == "cpu" else torch.zeros((), device=device)
        while self.alive and self.step < until:
            x, y = self._batches.examples()
            loss = cross_entropy(self.model.logits(self.weights, x, training=True), y)
            value = loss.detach() if device.type != "cpu" else float(loss.detach())
            if loss_is_due(self.step + 1, device) and not float(value) < LOSS_LIMIT:  # NaN too
                self.alive = False
                break
            grads = self._gradients(loss)
            self.step += 1
            self._update(grads)
            total += value
        self.loss = float(total) / max(1, self.step - first)
        return self.alive

    def _update(self, grads: list[Tensor]) -> None:
        nos_ext.apply_rule(
            self.rule.program,
            self._raw,
            grads,
            self.state,
            lr=self.lr * self._factor(self.step - 1),
            step=self.step,
            total_steps=self.total_steps,
            seed=self._rule_seed,
        )

    @torch.no_grad()
    def measure(self, split: Split) -> Measured:
        """Returns how well the child guesses the targets of `split`. If the loss is not finite it is DIVERGED, and the
        training has ended."""
        if not self.alive:
            return DIVERGED
        right = torch.zeros((), dtype=torch.int64, device=split.x.device)
        loss = torch.zeros((), dtype=torch.float64, device=split.x.device)
        size = eval_batch(split)
        for start in range(0, len(split), size):
            y = split.y[start : start + size]
            logits = self.model.logits(self.weights, split.x[start : start + size], training=False)
            loss += cross_entropy(logits, y, reduction="sum")
            right += (logits.argmax(-1) == y).sum()
        targets = int((split.y != IGNORED).sum())
        mean = float(loss) / targets
        self.alive = math.isfinite(mean)
        return Measured(int(right) / targets, mean) if self.alive else DIVERGED


class Cohort(Protocol):
    """A cohort is trainings that share the task, the seed and the number of steps, and are run side by side."""

    @property
    def lrs(self) -> Sequence[float]: ...

    def run(self, until: int) -> None:
        """Takes all that are alive up to step `until`."""

    def measure(self, split: Split) -> Sequence[Measured]: ...

    def alive(self) -> Sequence[bool]: ...

    def losses(self) -> Sequence[float]:
        """Returns the mean loss of each over the last run(), in nats."""

    def steps(self) -> Sequence[int]:
        """Returns how many steps each has taken."""

    def keep(self, which: Sequence[int]) -> Cohort:
        """Returns the cohort of those, in that order. This one is used up."""


class Singles:
    """A cohort of separate trainings, of which `threads` are run at once."""

    def __init__(self, trainings: Sequence[Training], threads: int = 1) -> None:
        self._trainings, self._threads = list(trainings), threads

    @classmethod
    def start(
        cls,
        rules: Sequence[CompiledRule],
        task: Task,
        *,
        lrs: Sequence[float],
        total_steps: int,
        seed: int,
        kind: type[Training] = Training,
        threads: int = 1,
    ) -> Singles:
        pairs = zip(rules, lrs, strict=True)
        return cls([kind(rule, task, lr=lr, total_steps=total_steps, seed=seed) for rule, lr in pairs], threads)

    @property
    def lrs(self) -> list[float]:
        return [training.lr for training in self._trainings]

    def run(self, until: int) -> None:
        each([partial(training.run, until) for training in self._trainings], self._threads)

    def measure(self, split: Split) -> list[Measured]:
        return each([partial(training.measure, split) for training in self._trainings], self._threads)

    def alive(self) -> list[bool]:
        return [training.alive for training in self._trainings]

    def losses(self) -> list[float]:
        return [training.loss for training in self._trainings]

    def steps(self) -> list[int]:
        return [training.step for training in self._trainings]

    def keep(self, which: Sequence[int]) -> Singles:
        return Singles([self._trainings[k] for k in which], self._threads)
