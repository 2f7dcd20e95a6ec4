"""Owns the charlm task, which is to predict the next character of the King James Bible. The text is in the public
domain, and the package carries a million characters of it (see _make_bible_subsets.py).

A --data-dir with a file `text.txt` (UTF-8) gives another text. Windows of 64 characters lie side by side; the first 90
% of the text trains, 5 % validates, 5 % tests (text.py). The score is the share of bits that is saved of those that a
guess by frequency alone costs; the loss is shown in bits per character.
"""

from __future__ import annotations

import lzma
from pathlib import Path

from .base import Budget, Task
from .text import read, windows

TEXT = Path(__file__).resolve().parent.parent / "data" / "kjv_text.txt.xz"
_BUDGET = Budget(batch_size=32, sweep_steps=60, train_steps=300)


def read_english(data_dir: Path | None, name: str) -> str:
    """Returns the carried text, or data_dir/text.txt, for the task `name`."""
    return lzma.decompress(TEXT.read_bytes()).decode("utf-8") if data_dir is None else read(data_dir / "text.txt", name)


def load(data_dir: Path | None) -> Task:
    """Returns the task from the carried text, or from data_dir/text.txt."""
    return windows("charlm", read_english(data_dir, "charlm"), _BUDGET)
