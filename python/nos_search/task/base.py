"""Owns what a task is: examples in three fixed splits, the child network to train on them, and the budgets.

Every task is a classification, of images, of their pixels or of the next token, so that one loss (cross-entropy) serves
all of them. Its score, which is the reward of a search, is a number in [0, 1] that score.py computes from accuracy and
loss.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bounds import check_count
from ..errors import UsageError, choose
from ..net import InputKind, Inputs, Net, Spec, build, parse
from .score import ACCURACY, SCORES, Measured

IGNORED = -100  # a target that counts neither for the loss nor for the accuracy, as torch's cross_entropy has it


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A split is examples and what is asked of them.

    `x` is images (n, channels, height, width), standardised with the training split, or tokens (n, length) int64. The
    network computes in the type of the images, which is float32, or float64 for a reference. `y` is class numbers
    int64: (n,) where an example has one target, (n, targets) where it has one for each of its tokens or for each number
    of its image. It is IGNORED where nothing is asked.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        asked = self.y.shape[1:]
        image = self.x.is_floating_point() and self.x.dim() == 4 and asked in ((), (math.prod(self.x.shape[1:]),))
        tokens = self.x.dtype == torch.int64 and self.x.dim() == 2 and self.y.dim() in (1, 2)
        if self.y.dtype != torch.int64 or not (image or tokens):
            raise ValueError(
                "split: want x (n, c, h, w) of floats and y (n,) or (n, c * h * w), or tokens x (n, length) and y (n,) "
                "or (n, targets); "
                f"got x {tuple(self.x.shape)} {self.x.dtype}, y {tuple(self.y.shape)} {self.y.dtype}"
            )
        if len(self.x) != len(self.y) or len(self.y) == 0:
            raise ValueError(f"split: {len(self.x)} examples and {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Split({len(self)} examples of {'x'.join(map(str, self.x.shape[1:]))})"

    def first(self, count: int) -> Split:
        """Returns the first `count` examples."""
        return Split(self.x[:count], self.y[:count])

    def to(self, device: torch.device | str) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Budget:
    """A budget says how long a child trains, with `batch_size` examples per step. Each learning rate of the sweep has
    `sweep_steps` (in the paper one epoch), and the longer training at the best one has `train_steps` (in the paper five
    epochs)."""

    batch_size: int
    sweep_steps: int
    train_steps: int


@dataclass(frozen=True)
class Task:
    """A task that is loaded in memory. A search never sees `test`. `evaluate`, `prove` and `train` read it, and so does
    the last word of `simplify` and `constants`.

    Targets have `classes` classes. `width`, `net` and `depth` are those of the child network (net/). `inputs` is None
    for images, whose shape says it all. `loss_name` says how the mean loss is shown: as "loss" in nats, as "bits" per
    target, or as "perplexity". Each split has at least one target that is not IGNORED, or it is a UsageError.

    `mirrors` says that an image and its mirror image have the same class. With `augment` the images that train are
    moved and mirrored anew in each step (train/augment.py).

    `score` is the name of the task's score (score.py). `blind_loss` is the mean loss in nats of a guess that knows how
    frequent each class is and nothing else; None takes the frequencies in the training split.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: int
    width: int
    budget: Budget
    net: str = "convnet"
    depth: int = 2
    inputs: Inputs | None = None
    loss_name: str = "loss"
    score: str = ACCURACY
    blind_loss: float | None = None
    mirrors: bool = False
    augment: bool = False

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if bool((split.y == IGNORED).all()):
                raise UsageError(
                    f"task {self.name}: none of the {split.y.numel()} targets of its split '{name}' counts, as all are "
                    f"{IGNORED} (ignored); give at least one a class"
                )
        if self.blind_loss is None:
            object.__setattr__(self, "blind_loss", class_entropy(self.train.y))

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        val: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        net: str | None = None,
        batch_size: int | None = None,
        sweep_steps: int | None = None,
        train_steps: int | None = None,
        score: str = ACCURACY,
        mirrors: bool = False,
        name: str = "arrays",
        seed: int = 0,
    ) -> Task:
        """Makes a classification task of arrays of your own, which are NumPy arrays, torch tensors or lists.

            >>> task = Task.from_arrays(table, labels, net="mlp-2-64", score="bits-saved")

        Args:
            x: the examples: numbers of shape (n, features), images (n, height, width) or (n, channels, height, width),
                or integer tokens (n, length), for which an embedding is learned. Each feature, and all pixels of
                images together, are shifted and scaled to mean 0 and variance 1 in the training split.
            y: the classes, as integers from 0 of shape (n,).
            val, test: splits of your own, as (x, y). Where one is left out, 15 % of the examples, drawn by `seed`, are
                taken for it.
            net: the child network, as NAME-DEPTH-WIDTH; a small ConvNet for images and a small MLP for the rest.
            batch_size: 64 where it is left out, or all examples if there are fewer.
            sweep_steps, train_steps: steps for each learning rate, and of the longer training; one epoch, and five.
            score: "accuracy", or "bits-saved", which says more about an optimizer (docs/tasks.md).
            mirrors: whether an image has the class of its mirror image, which augmentation needs to know.
            name: what tables and reports call it.

        Raises:
            UsageError: an argument has another shape or kind, which is named with the remedy.
        """
        from .arrays import from_arrays

        return from_arrays(
            x,
            y,
            val=val,
            test=test,
            net=net,
            batch_size=batch_size,
            sweep_steps=sweep_steps,
            train_steps=train_steps,
            score=score,
            mirrors=mirrors,
            name=name,
            seed=seed,
        )

    def reward(self, measured: Measured) -> float:
        """Returns the score of a child in [0, 1]. It is 0 where the loss is not finite."""
        assert self.blind_loss is not None
        return SCORES[self.score].of(measured, self.blind_loss) if math.isfinite(measured.loss) else 0.0

    @property
    def shape(self) -> Inputs:
        """Describes what the network is fed with."""
        if self.inputs is not None:
            return self.inputs
        _, channels, height, width = self.train.x.shape
        kind: InputKind = "image" if self.train.y.dim() == 1 else "pixels"
        return Inputs(kind, channels=channels, size=(height, width))

    @property
    def spec(self) -> Spec:
        return Spec(self.net, self.depth, self.width)

    @property
    def has_pictures(self) -> bool:
        """Tells whether its examples are images of more than one row, each with one class. These can be augmented."""
        return self.inputs is None and self.train.y.dim() == 1 and min(self.train.x.shape[2:]) > 1

    @property
    def epoch(self) -> int:
        """Counts the steps of one pass over the training split."""
        return max(1, len(self.train) // self.budget.batch_size)

    def model(self) -> Net:
        """Returns the child network of this task. It has no weights yet; see Net.init."""
        return build(self.spec, self.shape, self.classes)

    def to(self, device: torch.device | str) -> Task:
        """Returns the task with its data on `device`; children train where the data are."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def with_data(self, fraction: float) -> Task:
        """Returns the task with the first part of its training split, at least one batch. Validation and test stay
        whole."""
        if not 0 < fraction <= 1:
            raise UsageError(f"data fraction {fraction:g} is outside (0, 1]")
        count = min(len(self.train), max(self.budget.batch_size, round(fraction * len(self.train))))
        return replace(self, train=self.train.first(count))

    def with_options(
        self,
        *,
        net: str | None = None,
        width: int | None = None,
        sweep_steps: int | None = None,
        train_steps: int | None = None,
        score: str | None = None,
        augment: bool = False,
    ) -> Task:
        """Returns the task with another child network (NAME[-DEPTH[-WIDTH]]), width, budget or score, and its images
        augmented; None and False keep the task's own.

        Raises UsageError for a value out of bounds, for a network that does not fit the task, and for examples that
        cannot be augmented.
        """
        for name, value in (("--width", width), ("--sweep-steps", sweep_steps), ("--train-steps", train_steps)):
            if value is not None:
                check_count(name, value, "leave it out for the task's own")
        if score is not None and score not in SCORES:
            raise choose("--score", score, tuple(SCORES))
        if augment and not self.has_pictures:
            raise UsageError(
                f"task {self.name} cannot be augmented: it has no images with one class each; leave augment out"
            )
        spec = self.spec if net is None or net == self.net else parse(net, self.shape.kind)
        budget = replace(
            self.budget,
            sweep_steps=sweep_steps or self.budget.sweep_steps,
            train_steps=train_steps or self.budget.train_steps,
        )
        changed = replace(
            self,
            net=spec.name,
            depth=spec.depth,
            width=width or spec.width,
            budget=budget,
            score=score or self.score,
            augment=augment or self.augment,
        )
        changed.model()  # sizes that do not fit together are an error here, before any training
        return changed


# Loads a task; the argument is the user's --data-dir or None.
TaskLoader = Callable[[Path | None], Task]


def contents(task: Task) -> str:
    """Returns a checksum of what is equal on every machine where a task has equal examples: their number, their shapes
    and their targets. Inputs are floats that were scaled, and may differ by rounding."""
    digest = hashlib.sha256()
    for split in (task.train, task.val, task.test):
        digest.update(f"{tuple(split.x.shape)} {split.x.dtype} {tuple(split.y.shape)}".encode())
        digest.update(split.y.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def class_entropy(y: Tensor) -> float:
    """Returns the mean loss in nats, over the targets that count, of a guess that knows their frequencies alone."""
    counts = y[y != IGNORED].bincount().double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum()) + 0.0  # no -0.0


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Returns float32 images whose scale makes the training images have mean 0 and variance 1 over all pixels."""
    mean, std = train.mean(), train.std()
    return tuple(((images - mean) / std).contiguous() for images in (train, *others))
