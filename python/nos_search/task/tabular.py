"""Owns the tabular task: is a tumour malignant, by thirty measures of the nuclei of its cells? The data are the
"Breast Cancer Wisconsin (Diagnostic)" table of the UCI repository (Wolberg, Street, Mangasarian 1995), 569 rows that
ship inside scikit-learn.

The rows are split after a fixed shuffle: 200 train, 100 validate, and 269 test. The measures are standardised by
the rows that train. Since there are few of these and many steps, what is measured is also whether a rule keeps from
learning them by heart, which no task with new examples in every step can show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import SearchError
from .base import Budget, Split, Task

_TRAIN, _VAL = 200, 100
_SHUFFLE = 20170806  # fixes the split, not a run's seed; RandomState's stream is frozen by NumPy's policy
_BUDGET = Budget(batch_size=20, sweep_steps=30, train_steps=100)


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used. Raises SearchError when scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
    except ImportError:
        raise SearchError("task 'tabular' needs scikit-learn; install it with: pip install scikit-learn") from None
    bunch = load_breast_cancer()
    order = np.random.RandomState(_SHUFFLE).permutation(len(bunch.target))
    rows, labels = bunch.data[order], torch.from_numpy(bunch.target[order].astype(np.int64))
    known = rows[:_TRAIN]
    standard = torch.from_numpy(((rows - known.mean(0)) / known.std(0)).astype(np.float32))
    x = standard[:, None, None, :].contiguous()  # images of one row
    parts = (slice(0, _TRAIN), slice(_TRAIN, _TRAIN + _VAL), slice(_TRAIN + _VAL, None))
    train, val, test = (Split(x[part], labels[part]) for part in parts)
    return Task(
        "tabular",
        train,
        val,
        test,
        classes=2,
        width=32,
        budget=_BUDGET,
        net="mlp",
        depth=2,
        loss_name="bits",
        score="bits-saved",
    )
