"""Owns what a proof is made of where the user says nothing. It imports nothing heavy, so that help texts may say it.

The full proof is made to take one or two hours on two cores for one rule, and the quick one less than five minutes
(docs/prove.md has the times).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .families import DEFAULT, QUICK

BASELINES: Final = "adamw,adam,momentum,lion,muon"


@dataclass(frozen=True)
class Extent:
    """How much a proof has: tasks, sizes and horizons as the command line writes them, trainings that count in each
    cell, and settings of a rule's constants that are tried on each task."""

    tasks: str
    sizes: str
    horizons: str
    seeds: int
    tuning: int


FULL: Final = Extent(",".join(DEFAULT), "s,m,l", "1,4,10", 5, 6)
SHORT: Final = Extent(",".join(QUICK), "m", "1", 3, 3)  # with --quick
