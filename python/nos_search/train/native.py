"""Owns the training of a child by the kernels of nos_ext: the whole step in C++, with the batch in SIMD lanes.

It starts from the same weights and sees the same batches as the torch engine, so the first steps of both agree to
rounding. The kernels know the networks that `Net.layers` can describe, float32 images or tokens, and the CPU.
"""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import numpy as np
import torch

from nos_ext import _C

from ..errors import UsageError
from ..rules import CompiledRule
from ..task.base import Split, Task
from ..task.score import DIVERGED, Measured
from .decay import Decay, factor
from .seeds import derive_seed
from .training import LOSS_LIMIT, Batches, Training, fresh_weights

_arrays: WeakKeyDictionary[Split, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


def arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y of a split as the kernels take them: float32 or int32, and int32 classes."""
    found = _arrays.get(split)
    if found is None:
        x = split.x.contiguous().numpy() if split.x.is_floating_point() else split.x.numpy().astype(np.int32)
        found = _arrays[split] = (x, split.y.numpy().astype(np.int32))
    return found


_NUMBERS = 1 << 20  # of augmented images that are made at a time


def stretch(task: Task, steps: int) -> int:
    """Returns how many of these steps can be taken at once."""
    numbers = min(task.budget.batch_size, len(task.train)) * task.train.x[0].numel()
    return min(steps, max(1, _NUMBERS // numbers)) if task.augment else steps


def fed(task: Task, batches: Batches, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns x, y and the numbers in them of the examples of the next steps, one step after the other."""
    if not task.augment:
        return *arrays(task.train), batches.next(steps).numpy()
    x, y = batches.examples(steps)
    return x.numpy(), y.numpy().astype(np.int32), np.arange(len(y))


def why_not(task: Task) -> str | None:
    """Returns why the kernels cannot train the child of this task, or None where they can."""
    if _C.child_kernels() is None:
        return "this processor, or NOS_ISA, has no fused multiply-add"
    if task.train.x.device.type != "cpu":
        return f"the data are on {task.train.x.device}, and the kernels run on the CPU"
    if task.train.x.is_floating_point() and task.train.x.dtype != torch.float32:
        return f"the images are {task.train.x.dtype}, and the kernels compute in float32"
    if task.model().layers() is None:
        return f"there are no kernels for --net {task.spec}"
    return None


def check_kernels(task: Task) -> None:
    """Raises UsageError where the kernels cannot train the child of this task."""
    reason = why_not(task)
    if reason is not None:
        raise UsageError(f"--engine native: {reason}; use --engine auto or torch")


def new_child(task: Task) -> _C.Child:
    """Returns the child of this task as the kernels have it, without weights. Raises UsageError where they cannot."""
    check_kernels(task)
    layers, shape = task.model().layers(), task.shape
    assert layers is not None
    kind, sizes = ("image", [shape.channels, *shape.size]) if shape.kind == "image" else (
        "tokens", [shape.length, shape.vocabulary]
    )  # fmt: skip
    return _C.Child(layers, kind, sizes, min(task.budget.batch_size, len(task.train)))


class NativeTraining(Training):
    """A training by the kernels of nos_ext, with the attributes and methods of `Training`."""

    def __init__(
        self, rule: CompiledRule, task: Task, *, lr: float, total_steps: int, seed: int, decay: Decay = "none"
    ) -> None:
        self.child = new_child(task)
        self.rule, self.task, self.lr, self.total_steps = rule, task, lr, total_steps
        self._factor = factor(decay, total_steps)
        self._batches = Batches(task, seed)
        weights = fresh_weights(task, seed)
        self.child.set_weights([param.detach().numpy() for param in weights.params])
        self.child.set_running([running.numpy() for running in weights.running])
        self.child.begin(rule.program, lr, total_steps, derive_seed(seed, "rule"))
        self.step = 0
        self.loss = math.nan
        self.alive = True

    def run(self, until: int) -> bool:
        if not self.alive or self.step >= until:
            self.loss = 0.0
            return self.alive
        first, total = self.step, 0.0
        while self.alive and self.step < until:
            stop = self.step + stretch(self.task, until - self.step)
            rates = [self.lr * self._factor(step) for step in range(self.step, stop)]
            x, y, order = fed(self.task, self._batches, stop - self.step)
            steps, loss, self.alive = self.child.run(x, y, order, LOSS_LIMIT, rates)
            self.step += steps
            total += loss
        self.loss = total / max(1, self.step - first)
        return self.alive

    def measure(self, split: Split) -> Measured:
        if not self.alive:
            return DIVERGED
        loss, right, targets = self.child.evaluate(*arrays(split))
        self.alive = math.isfinite(loss)
        return Measured(right / targets, loss / targets) if self.alive else DIVERGED
