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
from numpy.typing import NDArray

from ..errors import UsageError
from .base import Budget, Split, Task, standardise
from .rows import Classes, Numbers, pool, task

_COUNTS = (1 << 17, 4096, 8192)  # to train, to validate and to test
_BLOCK = 1 << 13  # signals that are made at a time
_SEED = 20170806  # RandomState's stream is frozen by NumPy's policy
_EPSILON = 1e-8  # the package adds it, so that a shape that touches 0 is no padding
_BUDGET = Budget(batch_size=64, sweep_steps=60, train_steps=200)


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
    splits = []
    for count in _COUNTS:
        classes = random.randint(len(shapes), size=count).astype(np.int64)

        def make(start: int, size: int, classes: Classes = classes) -> tuple[Numbers, Classes]:
            block = classes[start : start + size]
            return signals(shapes[block], Draws.of(random, size, args), args), block

        splits.append(pool(count, args.final_seq_length, make, block=_BLOCK))
    scaled = standardise(*(part.x for part in splits))
    splits = [Split(x, part.y) for x, part in zip(scaled, splits, strict=True)]
    return task("mnist1d", splits, classes=len(shapes), depth=2, width=128, budget=_BUDGET)
