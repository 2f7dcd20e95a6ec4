"""Owns the tasks spanish and spanishlm, which are charmlp and charlm in another language: to guess the next character
of the Reina-Valera Bible of 1909. They show whether a rule that was found on the English text is good at that text, or
at such networks. No search here is rewarded on them.

The text is the Spanish side of the verse pairs of the translate task, one verse a line, with its capital letters,
accents and marks as they stand: 435,297 characters, of which 80 are different. That is less than half of the English
text: spanish has 3,059 steps of 128 before a second pass begins, and a training of spanishlm is 180 of the 191 steps
that one pass over its windows takes.

A --data-dir has the file `pairs.tsv` of translate.
"""

from __future__ import annotations

from pathlib import Path

from .base import Budget, Task
from .charmlp import BUDGET
from .text import contexts, windows
from .translate import read_pairs

_MODEL_BUDGET = Budget(batch_size=32, sweep_steps=60, train_steps=180)  # of 191 steps that are a pass


def load(data_dir: Path | None) -> Task:
    """Returns the task spanish from the carried pairs, or from data_dir/pairs.tsv."""
    return contexts("spanish", _text(data_dir, "spanish"), BUDGET)


def load_model(data_dir: Path | None) -> Task:
    """Returns the task spanishlm from the same."""
    return windows("spanishlm", _text(data_dir, "spanishlm"), _MODEL_BUDGET)


def _text(data_dir: Path | None, name: str) -> str:
    return "\n".join(target for _, target in read_pairs(data_dir, name))
