"""Owns the autoencoder task: to squeeze an image through a few numbers, and to say from these how bright each of its
pixels is. What a rule has to train is two networks in a row, of which the second sees nothing but the code of the
first.

The images are those of the fashion task as means of 4x4 pixels, which makes them 7x7. A pixel has one of eight classes:
black, and then seven equal parts of the grey scale. The network sees the classes, too, and nothing finer. The score is
the share of bits that is saved of those that a guess by the frequency of the eight costs.

A --data-dir is that of fashion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from .base import Budget, Split, Task, standardise
from .fashion import arrays

_CELL = 4  # pixels of an image that become one, in each direction
_LEVELS = 8
_BUDGET = Budget(batch_size=32, sweep_steps=60, train_steps=300)


def levels(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns the class of each pixel after pooling, (n, height, width), of images with the same in pixels. It is
    computed in whole numbers, so it is the same everywhere."""
    n, height, width = images.shape
    cells = images.reshape(n, height // _CELL, _CELL, width // _CELL, _CELL)
    sums = cells.sum((2, 4), dtype=np.int64)
    white = 255 * _CELL**2
    found: NDArray[np.int64] = -(-sums * (_LEVELS - 1) // white)  # rounded up: 0 is black alone
    return found


def load(data_dir: Path | None) -> Task:
    """Returns the task from the images of `data_dir`, or from those that the package carries."""
    images = arrays(data_dir)
    if any(side % _CELL for side in images["train_x"].shape[1:]):
        raise UsageError(f"--data-dir {data_dir}: autoencoder wants images whose sides are multiples of {_CELL} pixels")
    pixels = [torch.from_numpy(levels(images[f"{split}_x"])) for split in ("train", "val", "test")]
    x = standardise(*(part.unsqueeze(1).float() for part in pixels))
    train, val, test = (Split(inputs, part.flatten(1)) for inputs, part in zip(x, pixels, strict=True))
    return Task(
        "autoencoder",
        train,
        val,
        test,
        classes=_LEVELS,
        width=8,
        budget=_BUDGET,
        net="autoencoder",
        depth=1,
        loss_name="bits",
        score="bits-saved",
    )
