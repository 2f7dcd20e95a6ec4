"""Owns the tabular task: to guess a measure of a tumour from the other twenty-nine. The data are the "Breast Cancer
Wisconsin (Diagnostic)" table of the UCI repository (Wolberg, Street, Mangasarian 1995), which ships inside
scikit-learn: thirty measures of the nuclei of the cells of 569 tumours.

An example is a tumour without one of its measures. What is asked for is the quarter that it lies in, of those in which
the tumours that train lie. The network sees the other measures, standardised by these tumours, a 0 in the gap, and
thirty numbers that say where the gap is. So 569 rows give 17,070 examples. Their own question, whether a tumour is
malignant, has one answer for each row, is easy, and tells no rules apart: the differences between optimizers were a
third of those between seeds.

The tumours are split after a fixed shuffle: 300 train, 69 validate, and 200 test. The examples of one tumour have much
in common, so the 6000 of the test are worth less than as many tumours would be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import SearchError
from .base import Budget, Split, Task
from .rows import Numbers, split, task

_TRAIN, _VAL = 300, 69
_CLASSES = 4  # quarters
_SHUFFLE = 20170806  # fixes the split, not a run's seed; RandomState's stream is frozen by NumPy's policy
_BUDGET = Budget(batch_size=64, sweep_steps=60, train_steps=300)


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used. Raises SearchError when scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]
    except ImportError:
        raise SearchError("task 'tabular' needs scikit-learn; install it with: pip install scikit-learn") from None
    rows = load_breast_cancer().data
    rows = rows[np.random.RandomState(_SHUFFLE).permutation(len(rows))]
    known = rows[:_TRAIN]
    parts = (known, rows[_TRAIN : _TRAIN + _VAL], rows[_TRAIN + _VAL :])
    splits = [_examples(part, known) for part in parts]
    return task("tabular", splits, classes=_CLASSES, depth=1, width=32, budget=_BUDGET)


def _examples(rows: Numbers, known: Numbers) -> Split:
    """Returns the examples of these rows, all of a row's one after the other. `known` are the rows that train."""
    count = rows.shape[1]
    limits = np.sort(known, 0)[len(known) // _CLASSES :: len(known) // _CLASSES][: _CLASSES - 1]
    quarters = (rows[:, None] >= limits).sum(1)
    gaps = np.eye(count)
    seen = np.where(gaps == 1, 0, ((rows - known.mean(0)) / known.std(0))[:, None])
    x = np.concatenate([seen, np.broadcast_to(gaps, seen.shape)], 2)
    return split(x.reshape(-1, 2 * count), quarters.reshape(-1))
