"""Owns the mnist1d task: MNIST-1D (Greydanus, Kobak 2020), ten shapes as signals of 40 numbers, padded, scaled, moved,
sheared and noisy.

The shapes and the amounts of all that come from the package mnist1d (extra `mnist1d`; Apache-2.0). Its generator makes
a few thousand signals a second, one by one; here the same steps are taken for many at once, so that there is a pool of
2^17: 2048 steps of 64 see no signal twice (a longer training begins a second pass). It is made from a fixed seed, and
takes 22 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from .base import Budget, Split, Task, standardise

_COUNTS = (1 << 17, 4096, 8192)  # to train, to validate and to test
_BLOCK = 1 << 13  # signals that are made at a time
_SEED = 20170806  # RandomState's stream is frozen by NumPy's policy
_EPSILON = 1e-8  # the package adds it, so that a shape that touches 0 is no padding
_BUDGET = Budget(batch_size=64, sweep_steps=60, train_steps=200)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """What is drawn for each of n signals: (n,) numbers from 0 to 1 for padding, scale and shear, (n,) whole numbers
    for the move, and normal noise (n, length)."""

    pad: Numbers
    scale: Numbers
    shear: Numbers
    move: NDArray[np.int64]
    smooth: Numbers
    rough: Numbers

    @classmethod
    def of(cls, random: np.random.RandomState, count: int, args: Any) -> Draws:
        shape = (count, args.template_len + args.padding[1])
        return cls(
            random.random_sample(count),
            random.random_sample(count),
            random.random_sample(count),
            random.randint(args.max_translation, size=count),
            random.standard_normal(shape),
            random.standard_normal(shape),
        )


def _resample(signals: Numbers, places: Numbers) -> Numbers:
    """Returns the signals (n, length) at `places` (n, m) by linear interpolation between neighbours."""
    left = np.minimum(places.astype(np.int64), signals.shape[1] - 2)
    rest = places - left
    before, after = np.take_along_axis(signals, left, 1), np.take_along_axis(signals, left + 1, 1)
    mixed: Numbers = before + (after - before) * rest
    return mixed


def signals(shapes: Numbers, draws: Draws, args: Any) -> Numbers:
    """Returns one signal for each row of `shapes`, as mnist1d.transform makes it. `args` are the package's."""
    from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

    count, length = draws.smooth.shape
    low, high = args.padding
    padded = np.zeros((count, length + 1))
    padded[:, : args.template_len] = shapes + _EPSILON
    last = args.template_len - 1 + low + (draws.pad * (high - low + 1)).astype(np.int64)
    x = _resample(padded, np.linspace(0, 1, length) * last[:, None])
    x *= 1 + args.scale_coeff * (draws.scale[:, None] - 0.5)
    x = np.take_along_axis(x, (np.arange(length) - draws.move[:, None]) % length, 1)
    x = np.where(x != 0, x, gaussian_filter1d(args.corr_noise_scale * draws.smooth, 2, axis=1))
    x += args.iid_noise_scale * draws.rough
    x -= args.shear_scale * (draws.shear[:, None] - 0.5) * np.linspace(-0.5, 0.5, length)
    places = np.linspace(0, 1, args.final_seq_length) * (length - 1)
    return _resample(x, np.broadcast_to(places, (count, args.final_seq_length)))


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used. Raises UsageError when the package mnist1d is not installed."""
    try:
        from mnist1d.data import get_dataset_args, get_templates
    except ImportError as error:
        raise UsageError(
            f"task 'mnist1d' needs the package mnist1d ({error}); install it with: pip install 'nos-ext[mnist1d]'"
        ) from None
    args, shapes = get_dataset_args(), get_templates()["x"]
    random = np.random.RandomState(_SEED)
    images, labels = [], []
    for count in _COUNTS:
        classes = random.randint(len(shapes), size=count)
        x = torch.empty(count, 1, 1, args.final_seq_length)
        for start in range(0, count, _BLOCK):
            block = classes[start : start + _BLOCK]
            made = signals(shapes[block], Draws.of(random, len(block), args), args)
            x[start : start + _BLOCK, 0, 0] = torch.from_numpy(made)
        images.append(x)
        labels.append(torch.from_numpy(classes.astype(np.int64)))
    train, val, test = (Split(x, y) for x, y in zip(standardise(*images), labels, strict=True))
    return Task(
        "mnist1d",
        train,
        val,
        test,
        classes=len(shapes),
        width=128,
        budget=_BUDGET,
        net="mlp",
        depth=2,
        loss_name="bits",
        score="bits-saved",
    )
