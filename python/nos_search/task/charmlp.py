"""Owns the charmlp task, which is to guess the next character of the King James Bible from the eight before it, in a
single pass: no position of the text is seen twice. It is what a search trains on by default, because its loss tells
rules apart (docs/tasks.md).

The text, its split and a --data-dir are those of the charlm task. The training split holds at most 2^19 positions of
its part of the text, which are drawn once. That is enough for 4096 steps of 128 (a longer training begins a second
pass), and bounds the memory at 60 MB. At most 4096 positions validate and 8192 test, evenly spaced.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..net import Inputs
from .base import Budget, Split, Task
from .charlm import HELD_OUT, read_tokens

_CONTEXT = 8  # characters
_TRAIN, _VAL, _TEST = 1 << 19, 4096, 8192  # positions, at most
_DRAW = 20170806  # fixes the positions; RandomState's stream is frozen by NumPy's policy
_BUDGET = Budget(batch_size=128, sweep_steps=60, train_steps=300)


def load(data_dir: Path | None) -> Task:
    """Returns the task from the carried text, or from data_dir/text.txt."""
    tokens, vocabulary = read_tokens(data_dir, "charmlp")
    held = len(tokens) // HELD_OUT
    train, val, test = tokens[: -2 * held], tokens[-2 * held : -held], tokens[-held:]
    drawn = np.random.RandomState(_DRAW).permutation(len(train) - _CONTEXT)[:_TRAIN]
    return Task(
        "charmlp",
        _split(train, torch.from_numpy(np.sort(drawn))),
        _split(val, _spaced(len(val) - _CONTEXT, _VAL)),
        _split(test, _spaced(len(test) - _CONTEXT, _TEST)),
        classes=vocabulary,
        width=64,
        budget=_BUDGET,
        net="mlp",
        depth=1,
        inputs=Inputs("context", vocabulary=vocabulary, length=_CONTEXT),
        loss_name="bits",
        score="bits-saved",
    )


def _spaced(positions: int, most: int) -> Tensor:
    return torch.arange(0, positions, -(-positions // most))


def _split(text: Tensor, positions: Tensor) -> Split:
    windows = text.unfold(0, _CONTEXT + 1, 1)[positions]
    return Split(windows[:, :_CONTEXT].contiguous(), windows[:, _CONTEXT].contiguous())
