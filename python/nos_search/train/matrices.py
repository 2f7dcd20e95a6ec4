"""Owns the training of a child with a rule that orthogonalizes, as Muon does. Such a rule takes the hidden matrices,
and AdamW the rest, with one learning rate for both.

Hidden matrices are the weights of two dimensions or more, but for tables of embeddings and the output layer, as in
`nos_ext.optim.groups`. AdamW has its usual constants. A rule whose steps are to be as long as AdamW's, so that the rate
fits both, says adjust="match_rms_adamw".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

import nos_ext

from ..rules import CompiledRule, compile_rule
from ..task.base import Split, Task
from ..task.score import DIVERGED, Measured
from .decay import Decay
from .native import arrays, fed, new_child
from .training import LOSS_LIMIT, Training

REST = "adamw"  # has the weights that are no hidden matrices


@cache
def _rest() -> CompiledRule:
    return compile_rule(REST)


def hidden(task: Task, params: Sequence[Tensor]) -> list[bool]:
    """Tells of each weight whether it is a hidden matrix. The output layer is the last matrix, and a table of
    embeddings has a row for each token."""
    vocabularies = {task.shape.vocabulary, task.shape.source_vocabulary} - {0}
    last = max(k for k, param in enumerate(params) if param.dim() > 1)
    return [
        param.dim() > 1 and k != last and not (param.dim() == 2 and param.shape[0] in vocabularies)
        for k, param in enumerate(params)
    ]


class MatrixTraining(Training):
    """A training by torch with two rules."""

    def __init__(
        self, rule: CompiledRule, task: Task, *, lr: float, total_steps: int, seed: int, decay: Decay = "none"
    ) -> None:
        super().__init__(rule, task, lr=lr, total_steps=total_steps, seed=seed, decay=decay)
        self._hidden = hidden(task, self._raw)
        self._rest_state = nos_ext.init_state(_rest().program, self._raw)

    def _update(self, grads: list[Tensor]) -> None:
        for mine, program, state in (
            (True, self.rule.program, self.state),
            (False, _rest().program, self._rest_state),
        ):
            nos_ext.apply_rule(
                program,
                self._raw,
                [grad if is_hidden == mine else None for grad, is_hidden in zip(grads, self._hidden, strict=True)],
                state,
                lr=self.lr * self._factor(self.step - 1),
                step=self.step,
                total_steps=self.total_steps,
                seed=self._rule_seed,
            )


class NativeMatrixTraining(MatrixTraining):
    """The same with gradients by own kernels. The rules run outside of them, so the weights go to and fro at every
    step."""

    def __init__(
        self, rule: CompiledRule, task: Task, *, lr: float, total_steps: int, seed: int, decay: Decay = "none"
    ) -> None:
        super().__init__(rule, task, lr=lr, total_steps=total_steps, seed=seed, decay=decay)
        self.child = new_child(task)
        self.child.set_running([running.numpy() for running in self.weights.running])

    def run(self, until: int) -> bool:
        first, total = self.step, 0.0
        while self.alive and self.step < until:
            self.child.set_weights([param.numpy() for param in self._raw])
            self.weights.seen += 1
            value = self.child.loss(*fed(self.task, self._batches, 1), self.weights.momentum)
            if not value < LOSS_LIMIT:  # NaN too
                self.alive = False
                break
            self.step += 1
            self._update([torch.from_numpy(grad) for grad in self.child.gradients()])
            total += value
        self.loss = total / max(1, self.step - first)
        return self.alive

    def measure(self, split: Split) -> Measured:
        if not self.alive:
            return DIVERGED
        self.child.set_weights([param.numpy() for param in self._raw])
        loss, right, targets = self.child.evaluate(*arrays(split))
        self.alive = math.isfinite(loss)
        return Measured(right / targets, loss / targets) if self.alive else DIVERGED
