"""Owns the ladder of a search whose user names none. It imports nothing heavy, so that help texts may say it.

First comes the search's own task, ten times as long and with three seeds. What does well there is scored on other
tasks, so that a rule which fits one network and one text only does not win. None of them is one on which `prove` proves
a rule (prove/families.py): a proof is on tasks that no default search is rewarded on.
"""

from __future__ import annotations

import importlib.util
from typing import Final

OWN: Final = "own"  # in a ladder: the search's own task, with the network and the budget that the search has
DEFAULT, NONE = "default", "none"  # words for --promote
ETA: Final = 30  # one rule in so many goes up; with it promotions take about a third of a search (docs/tasks.md)
TRANSFER: Final = ("charmlp", "teacher", "mnist1d", "charlm")
_PACKAGES: Final = {"mnist1d": "mnist1d"}  # what a task needs besides this package
_LONGER: Final = f"{OWN}*10#3"


def default_ladder(task: str, *, transfer: bool = True) -> str:
    """Returns the rungs above a search on this task. Without `transfer` they are those of the task alone. A task whose
    package is not installed is left out."""
    found = [
        name
        for name in TRANSFER
        if name != task and (name not in _PACKAGES or importlib.util.find_spec(_PACKAGES[name]) is not None)
    ]
    return f"{_LONGER}, {'+'.join(found)}" if transfer else _LONGER
