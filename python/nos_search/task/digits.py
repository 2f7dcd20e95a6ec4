"""Owns the digits task: 1797 real 8x8 images of handwritten digits that ship inside scikit-learn. A trial takes a
second.

The data are the test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin, Kaynak). They are split
after a fixed shuffle: 1100 train, 297 validate, and 400 test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import SearchError
from .base import Budget, Split, Task, standardise

_TRAIN, _VAL = 1100, 297
_BUDGET = Budget(batch_size=100, sweep_steps=11, train_steps=33)  # 1 and 3 epochs
_SHUFFLE = 20170806  # fixes the split, not a run's seed; RandomState's stream is frozen by NumPy's policy


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used. Raises SearchError when scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise SearchError("task 'digits' needs scikit-learn; install it with: pip install scikit-learn") from None
    bunch = load_digits()
    order = np.random.RandomState(_SHUFFLE).permutation(len(bunch.target))
    images = torch.from_numpy(np.ascontiguousarray(bunch.images[order], dtype=np.float32)).unsqueeze(1)
    labels = torch.from_numpy(np.ascontiguousarray(bunch.target[order], dtype=np.int64))
    parts = (slice(0, _TRAIN), slice(_TRAIN, _TRAIN + _VAL), slice(_TRAIN + _VAL, None))
    splits = standardise(*(images[part] for part in parts))
    train, val, test = (Split(x, labels[part]) for x, part in zip(splits, parts, strict=True))
    return Task("digits", train, val, test, classes=10, width=8, budget=_BUDGET)
