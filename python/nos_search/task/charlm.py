"""Owns the charlm task, which is to predict the next character of the King James Bible. The text is in the public
domain, and the package carries a million characters of it (see _make_bible_subsets.py).

A --data-dir with a file `text.txt` (UTF-8) gives another text. Windows of 64 characters lie side by side; the first 90
% of the text trains, 5 % validates, 5 % tests. The score is the share of bits that is saved of those that a guess by
frequency alone costs; the loss is shown in bits per character.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..net import Inputs
from .base import Budget, Split, Task

TEXT = Path(__file__).resolve().parent.parent / "data" / "kjv_text.txt.xz"
_LENGTH = 64
_BUDGET = Budget(batch_size=32, sweep_steps=60, train_steps=300)
_MAX_SYMBOLS = 256  # rarer characters are one symbol
HELD_OUT = 20  # one part of so many validates, one tests


def _read(folder: Path | None, name: str) -> str:
    if folder is None:
        return lzma.decompress(TEXT.read_bytes()).decode("utf-8")
    path = folder / "text.txt"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--data-dir: {path} cannot be read as UTF-8 text ({error}); {name} wants that file") from None


def read_tokens(data_dir: Path | None, name: str) -> tuple[Tensor, int]:
    """Returns the text of the task `name`, character by character, and how large its alphabet is. Characters are
    numbered by how frequent they are, the most frequent one is 0."""
    text = _read(data_dir, name)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    if len(codes) // _LENGTH < 3 * HELD_OUT:
        raise UsageError(
            f"--data-dir: text.txt has {len(codes)} characters; {name} wants {3 * HELD_OUT * _LENGTH} or more"
        )
    symbols, index, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = np.empty(len(symbols), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(symbols))
    tokens = torch.from_numpy(np.minimum(ranks[index.reshape(-1)], _MAX_SYMBOLS - 1))
    return tokens, min(len(symbols), _MAX_SYMBOLS)


def load(data_dir: Path | None) -> Task:
    """Returns the task from the carried text, or from data_dir/text.txt."""
    tokens, vocabulary = read_tokens(data_dir, "charlm")
    windows = (len(tokens) - 1) // _LENGTH
    x, y = tokens[: windows * _LENGTH].view(-1, _LENGTH), tokens[1 : windows * _LENGTH + 1].view(-1, _LENGTH)
    held = windows // HELD_OUT
    parts = (slice(0, windows - 2 * held), slice(windows - 2 * held, windows - held), slice(windows - held, windows))
    train, val, test = (Split(x[part].contiguous(), y[part].contiguous()) for part in parts)
    return Task(
        "charlm",
        train,
        val,
        test,
        classes=vocabulary,
        width=96,
        budget=_BUDGET,
        net="gru",
        depth=1,
        inputs=Inputs("text", vocabulary=vocabulary, length=_LENGTH),
        loss_name="bits",
        score="bits-saved",
    )
