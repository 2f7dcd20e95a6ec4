"""Owns the table of what kind each task is, and which of them a search uses as a reward.

A rule that was found on a task says little by being good on it, so a proof is on tasks that no search uses. This module
imports nothing, so that help texts may list them.
"""

from __future__ import annotations

from typing import Final

FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "images": ("fashion14", "patch10", "fashion", "fashion-full", "cifar10", "digits"),
    "signals": ("chirps", "mnist1d"),
    "text": ("spanish", "spanishlm", "charmlp", "charlm"),
    "translation": ("translate",),
    "tabular": ("tabular", "friedman"),
    "autoencoder": ("autoencoder",),
    "teacher": ("teacher",),
}
OTHER: Final = "other"  # a task of the user's own
SEARCHED: Final = ("charmlp", "teacher", "mnist1d", "charlm", "digits")  # on these a search may have found the rule
# What a full proof is on: all that no search uses and that a night is not too short for. Of fashion and translate one
# alone would take longer than all of these.
DEFAULT: Final = ("fashion14", "patch10", "chirps", "spanish", "spanishlm", "tabular", "friedman", "autoencoder")
QUICK: Final = ("fashion14", "chirps", "spanish", "tabular", "autoencoder")  # the cheap ones, one of a family


def family_of(task: str) -> str:
    """Returns the family of a task by name."""
    return next((family for family, tasks in FAMILIES.items() if task in tasks), OTHER)
