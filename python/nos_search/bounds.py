"""Owns how large the whole numbers that a user gives may be, whichever command takes them.

Each bound is far beyond what a machine can do, and far below where a library's own integers or a machine's memory end
with an error that names no option, or with no error at all.
"""

from __future__ import annotations

from .errors import UsageError

MOST = {  # option -> its largest value
    "--threads": 4096,
    "--workers": 4096,
    "--batch": 65_536,  # one call makes as many rules
    "--promote-eta": 1_000_000,
    "--trials": 1_000_000_000,
    "--children": 1_000_000_000,
    "--width": 65_536,
    "--net depth": 1000,
    "--net width": 65_536,
    "--sweep-steps": 1_000_000_000,
    "--train-steps": 1_000_000_000,
    "--seeds": 100_000,
    "--samples": 1_000_000,
    "--steps": 100_000,  # steps on the surfaces; a figure keeps 100 KB for each
    "--rounds": 1_000_000,
    "--rules": 1_000_000,
    "--times": 1_000_000,
    "--tuning": 10_000,
    "--population": 100_000,
    "--generations": 100_000,
    "--generation-seeds": 100_000,
    "--cases": 1_000_000,
    "--families": 1000,
    "--cells": 1000,
    "--baselines": 1000,
    "diagnose --trials": 100_000,  # each takes 100 KB at a time
    "gate steps": 100_000,
    "strategy option": 1_000_000,  # the value of any such option: sizes of a network, a batch, a population
}


def check_count(option: str, value: int, remedy: str = "choose a larger number", *, least: int = 1) -> None:
    """Raises UsageError when the value of an option is no whole number, is too large, or below `least`; then `remedy`
    says what to do."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):  # as NumPy's integers have
        raise UsageError(f"{option} is {ascii(value)[:60]}, a {type(value).__name__}; give a whole number")
    if value < least:
        raise UsageError(f"{option} {value} is below {least}; {remedy}")
    if value > MOST[option]:
        raise UsageError(f"{option} {value} is above {MOST[option]}; choose a smaller number")
