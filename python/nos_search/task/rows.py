"""Owns what tasks of rows of numbers have in common: their examples are images of one row, the child is an MLP, and the
score is the share of bits that it saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .base import Budget, Split, Task

Numbers = NDArray[np.float64]
Classes = NDArray[np.int64]
# Makes so many examples from that number on: their numbers (size, length), and their classes.
Make = Callable[[int, int], tuple[Numbers, Classes]]


def split(x: NDArray[np.floating], classes: Classes) -> Split:
    """Returns examples from their numbers (n, length) and classes."""
    numbers = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    return Split(numbers.view(len(x), 1, 1, -1), torch.from_numpy(classes.astype(np.int64)))


def pool(count: int, length: int, make: Make, *, block: int) -> Split:
    """Makes `count` examples, a block at a time, as all at once would take many times the memory of a pool."""
    x, y = np.empty((count, length), np.float32), np.empty(count, np.int64)
    for start in range(0, count, block):
        size = min(block, count - start)
        x[start : start + size], y[start : start + size] = make(start, size)
    return split(x, y)


def task(name: str, splits: Sequence[Split], *, classes: int, depth: int, width: int, budget: Budget) -> Task:
    """Returns the task with these splits, to train, to validate and to test, and an MLP of that depth and width."""
    train, val, test = splits
    return Task(
        name,
        train,
        val,
        test,
        classes=classes,
        width=width,
        budget=budget,
        net="mlp",
        depth=depth,
        loss_name="bits",
        score="bits-saved",
    )
