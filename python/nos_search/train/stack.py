"""Owns the stacked cohort: many children of one task are one network with a leading dimension.

torch.func.vmap turns K forward passes into one, autograd gives K gradients at once, and `nos_ext.apply_population`
updates K slices by K programs and K learning rates in one call. Slice k goes through the arithmetic of a training of
its own, except for the order of sums inside of stacked convolutions and matrix products, so results agree to rounding.

It is for devices where launching an op costs more than its work on one small child. On the CPU seven children in a
stack took between 0.9 and 3 times as long as one after the other (bench/child.py), so they are stacked on request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import nos_ext

from ..net import Weights
from ..rules import CompiledRule
from ..task.base import IGNORED, Split, Task
from ..task.score import DIVERGED, Measured
from .seeds import derive_seed
from .training import LOSS_LIMIT, Batches, cross_entropy, eval_batch, fresh_weights, loss_is_due


def pays(task: Task) -> bool:
    """Tells whether a stack is expected to be faster than its children one after the other."""
    return task.train.x.device.type != "cpu"


class Stack:
    """A cohort of K children that is one network. Each child has its own rule and learning rate; all start from the
    same weights and see the same batches, as separate trainings of equal seed do."""

    def __init__(
        self, rules: Sequence[CompiledRule], task: Task, *, lrs: Sequence[float], total_steps: int, seed: int
    ) -> None:
        first = fresh_weights(task, seed)
        count = len(rules)

        def stacked(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.detach().expand(count, *tensor.shape).contiguous() for tensor in tensors]

        self._task, self._model, self._total_steps = task, task.model().stackable(), total_steps
        self._programs, self.lrs = [rule.program for rule in rules], list(lrs)
        self._raw, self._running = stacked(first.params), stacked(first.running)
        self._state = nos_ext.init_population_state(self._programs, self._raw)
        self._rule_seed, self._batches = derive_seed(seed, "rule"), Batches(task, seed)
        self._step = 0
        self._alive, self._steps = [True] * count, [0] * count
        self._losses = [math.nan] * count
        self._begin()

    def _begin(self) -> None:
        self._params = [raw.requires_grad_() for raw in (raw.detach() for raw in self._raw)]
        self._raw = [param.detach() for param in self._params]

    def _weights(self, params: Sequence[Tensor], running: Sequence[Tensor]) -> Weights:
        return Weights(list(params), list(running), self._step)

    def _loss(self, params: Sequence[Tensor], running: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self._model.logits(self._weights(params, running), x, training=True), y)

    def run(self, until: int) -> None:
        """Trains all up to step `until`. A child whose loss is not finite, or beyond any use, is dead; its slice goes
        on without touching the others, until all are dead or keep() leaves it out."""
        device = self._task.train.x.device
        total = torch.zeros(len(self.lrs), dtype=torch.float64, device=device)
        first = list(self._steps)
        while any(self._alive) and self._step < until:
            losses = self._advance()
            if loss_is_due(self._step + 1, device):
                fine = (losses < LOSS_LIMIT).tolist()
                self._alive = [a and b for a, b in zip(self._alive, fine, strict=True)]
                if not any(self._alive):
                    break
            self._step += 1
            self._steps = [n + 1 if a else n for n, a in zip(self._steps, self._alive, strict=True)]
            total += losses
        counts = [max(1, now - then) for now, then in zip(self._steps, first, strict=True)]
        self._losses = [value / count for value, count in zip(total.tolist(), counts, strict=True)]

    def _advance(self) -> Tensor:
        """Makes one step of all children, and returns the losses before it."""
        forward = torch.func.vmap(self._loss, in_dims=(0, 0, None, None))
        losses = forward(self._params, self._running, *self._batches.examples())
        grads = torch.autograd.grad(losses.sum(), self._params)
        nos_ext.apply_population(
            self._programs,
            self._raw,
            [g if g.stride() == p.stride() else g.contiguous() for g, p in zip(grads, self._raw, strict=True)],
            self._state,
            lr=self.lrs,
            step=self._step + 1,
            total_steps=self._total_steps,
            seed=self._rule_seed,
        )
        return losses.detach()

    @torch.no_grad()
    def measure(self, split: Split) -> list[Measured]:
        """Returns how well each child guesses. It is DIVERGED for the dead, and for those whose loss is not finite,
        which are dead from then on."""
        size, count = eval_batch(split), len(self.lrs)
        right = torch.zeros(count, dtype=torch.int64, device=split.x.device)
        loss = torch.zeros(count, dtype=torch.float64, device=split.x.device)
        targets = int((split.y != IGNORED).sum())

        def logits(params: Sequence[Tensor], running: Sequence[Tensor], x: Tensor) -> Tensor:
            return self._model.logits(self._weights(params, running), x, training=False)

        for start in range(0, len(split), size):
            y = split.y[start : start + size]
            out = torch.func.vmap(logits, in_dims=(0, 0, None))(self._raw, self._running, split.x[start : start + size])
            loss += torch.stack([cross_entropy(one, y, reduction="sum") for one in out])
            right += (out.argmax(-1) == y).flatten(1).sum(1)
        finite = (loss.isfinite()).tolist()
        self._alive = [a and b for a, b in zip(self._alive, finite, strict=True)]
        means = (loss / targets).tolist()
        return [
            Measured(n / targets, mean) if a else DIVERGED
            for n, mean, a in zip(right.tolist(), means, self._alive, strict=True)
        ]

    def alive(self) -> list[bool]:
        return list(self._alive)

    def losses(self) -> list[float]:
        return list(self._losses)

    def steps(self) -> list[int]:
        return list(self._steps)

    def keep(self, which: Sequence[int]) -> Stack:
        index = torch.tensor(list(which), dtype=torch.long, device=self._raw[0].device)

        def taken(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.index_select(0, index) for tensor in tensors]

        self._raw, self._running = taken(self._raw), taken(self._running)
        self._programs, self.lrs = [self._programs[k] for k in which], [self.lrs[k] for k in which]
        needed = max((len(program.state_names) for program in self._programs), default=0)
        self._state = [taken(slot) for slot in self._state[:needed]]
        self._alive, self._steps = [self._alive[k] for k in which], [self._steps[k] for k in which]
        self._losses = [self._losses[k] for k in which]
        self._begin()
        return self
