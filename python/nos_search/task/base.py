"""Owns what a task is: labelled arrays in three fixed splits, the child network to train on them, and the budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UsageError
from ..train.net import ConvNet


@dataclass(frozen=True)
class Split:
    """x: (n, channels, height, width) float32, standardised with the training split; y: (n,) int64 class numbers."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.float32 or self.y.dtype != torch.int64 or self.x.dim() != 4:
            raise ValueError(f"split: want x (n, c, h, w) float32 and y (n,) int64, got {self.x.dtype}, {self.y.dtype}")
        if len(self.x) != len(self.y) or len(self.y) == 0:
            raise ValueError(f"split: {len(self.x)} images and {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Budget:
    """How long a child trains. batch_size: examples per step. sweep_steps: for each learning rate of the sweep (the
    paper: one epoch). train_steps: the longer training at the best one (the paper: five epochs)."""

    batch_size: int
    sweep_steps: int
    train_steps: int


@dataclass(frozen=True)
class Task:
    """A task loaded in memory. `test` is never seen by a search; only `evaluate` reads it."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: int
    width: int
    budget: Budget

    def model(self) -> ConvNet:
        """The child network of this task (no weights yet; see ConvNet.init)."""
        _, channels, height, width = self.train.x.shape
        return ConvNet(channels=channels, size=(height, width), width=self.width, classes=self.classes)

    def with_options(
        self, *, width: int | None = None, sweep_steps: int | None = None, train_steps: int | None = None
    ) -> Task:
        """The task with another child width or budget; None keeps the task's own. UsageError for a value below 1."""
        for name, value in (("--width", width), ("--sweep-steps", sweep_steps), ("--train-steps", train_steps)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is below 1; leave it out for the task's own")
        budget = replace(
            self.budget,
            sweep_steps=sweep_steps or self.budget.sweep_steps,
            train_steps=train_steps or self.budget.train_steps,
        )
        return replace(self, width=width or self.width, budget=budget)


# Loads a task; the argument is the user's --data-dir or None.
Loader = Callable[[Path | None], Task]


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """float32 images with the mean 0 and variance 1 of the training images over all pixels."""
    mean, std = train.mean(), train.std()
    return tuple(((images - mean) / std).contiguous() for images in (train, *others))
