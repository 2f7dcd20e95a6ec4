"""Owns the charmlp task, which is to guess the next character of the King James Bible from the eight before it, in a
single pass: no position of the text is seen twice. It is what a search trains on by default, because its loss tells
rules apart (docs/tasks.md).

The text, its split and a --data-dir are those of the charlm task.
"""

from __future__ import annotations

from pathlib import Path

from .base import Budget, Task
from .charlm import read_english
from .text import contexts

BUDGET = Budget(batch_size=128, sweep_steps=60, train_steps=300)


def load(data_dir: Path | None) -> Task:
    """Returns the task from the carried text, or from data_dir/text.txt."""
    return contexts("charmlp", read_english(data_dir, "charmlp"), BUDGET)
