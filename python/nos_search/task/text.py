"""Owns the two tasks that any text makes: to guess the next character at every place of a window, or after a few
characters before it. The first 90 % of the text trains, 5 % validates, and 5 % tests.

Characters are numbered by how frequent they are in the text, the most frequent one is 0. Whatever letters, accents and
marks a text has, each is a symbol of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..net import Inputs
from .base import Budget, Split, Task

_LENGTH = 64  # characters of a window
_CONTEXT = 8  # characters before the one to guess
_TRAIN, _VAL, _TEST = 1 << 19, 4096, 8192  # contexts, at most
_DRAW = 20170806  # fixes the contexts that train; RandomState's stream is frozen by NumPy's policy
_MAX_SYMBOLS = 256  # rarer characters are one symbol
_HELD_OUT = 20  # one part of so many validates, one tests


def read(path: Path, name: str) -> str:
    """Returns the text of a file in a --data-dir. Raises UsageError, which says that the task `name` wants the file,
    where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--data-dir: {path} cannot be read as UTF-8 text ({error}); {name} wants that file") from None


def windows(name: str, text: str, budget: Budget) -> Task:
    """Returns the task `name` with windows of 64 characters, side by side, for a language model."""
    tokens, vocabulary = _numbered(name, text)
    count = (len(tokens) - 1) // _LENGTH
    x, y = tokens[: count * _LENGTH].view(-1, _LENGTH), tokens[1 : count * _LENGTH + 1].view(-1, _LENGTH)
    held = count // _HELD_OUT
    parts = (slice(0, count - 2 * held), slice(count - 2 * held, count - held), slice(count - held, count))
    train, val, test = (Split(x[part].contiguous(), y[part].contiguous()) for part in parts)
    return Task(
        name,
        train,
        val,
        test,
        classes=vocabulary,
        width=96,
        budget=budget,
        net="gru",
        depth=1,
        inputs=Inputs("text", vocabulary=vocabulary, length=_LENGTH),
        loss_name="bits",
        score="bits-saved",
    )


def contexts(name: str, text: str, budget: Budget) -> Task:
    """Returns the task `name` with eight characters and the one after them, for a perceptron.

    The training split holds at most 2^19 positions of its part of the text, which are drawn once. That is enough for
    4096 steps of 128 (a longer training begins a second pass), and bounds the memory at 60 MB. At most 4096 positions
    validate and 8192 test, evenly spaced.
    """
    tokens, vocabulary = _numbered(name, text)
    held = len(tokens) // _HELD_OUT
    train, val, test = tokens[: -2 * held], tokens[-2 * held : -held], tokens[-held:]
    drawn = np.random.RandomState(_DRAW).permutation(len(train) - _CONTEXT)[:_TRAIN]
    return Task(
        name,
        _contexts(train, torch.from_numpy(np.sort(drawn))),
        _contexts(val, _spaced(len(val) - _CONTEXT, _VAL)),
        _contexts(test, _spaced(len(test) - _CONTEXT, _TEST)),
        classes=vocabulary,
        width=64,
        budget=budget,
        net="mlp",
        depth=1,
        inputs=Inputs("context", vocabulary=vocabulary, length=_CONTEXT),
        loss_name="bits",
        score="bits-saved",
    )


def _numbered(name: str, text: str) -> tuple[Tensor, int]:
    """Returns the text as numbers, and how large its alphabet is."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    if len(codes) // _LENGTH < 3 * _HELD_OUT:
        raise UsageError(
            f"--data-dir: the text has {len(codes)} characters; {name} wants {3 * _HELD_OUT * _LENGTH} or more"
        )
    symbols, index, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = np.empty(len(symbols), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(symbols))
    tokens = torch.from_numpy(np.minimum(ranks[index.reshape(-1)], _MAX_SYMBOLS - 1))
    return tokens, min(len(symbols), _MAX_SYMBOLS)


def _spaced(positions: int, most: int) -> Tensor:
    return torch.arange(0, positions, -(-positions // most))


def _contexts(text: Tensor, positions: Tensor) -> Split:
    found = text.unfold(0, _CONTEXT + 1, 1)[positions]
    return Split(found[:, :_CONTEXT].contiguous(), found[:, _CONTEXT].contiguous())
