"""Owns the list of strategies by name. A new strategy is one file, one row here, and one StrategyCase in the tests."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from ..bounds import MOST
from ..errors import UsageError, choose
from ..space import SearchSpace
from .base import Strategy
from .controller import ControllerStrategy
from .evolution import EvolutionStrategy
from .external import ExternalStrategy
from .optuna import OptunaStrategy
from .random import RandomStrategy

STRATEGIES: dict[str, type[Strategy]] = {
    cls.name: cls for cls in (ControllerStrategy, EvolutionStrategy, RandomStrategy, OptunaStrategy, ExternalStrategy)
}


def create(name: str, space: SearchSpace, *, seed: int, options: Mapping[str, Any] | None = None) -> Strategy:
    """Returns a fresh strategy. Raises UsageError for an unknown name or option; the message lists those that exist."""
    if name not in STRATEGIES:
        raise choose("--strategy", name, tuple(STRATEGIES))
    known = STRATEGIES[name](space, seed=seed).options()
    for option, value in (options or {}).items():
        if option not in known:
            raise UsageError(f"strategy {name!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
        default = known[option]
        wanted = (str,) if isinstance(default, str) else (int, float) if isinstance(default, float) else (int,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = "a word" if str in wanted else "a number" if float in wanted else "a whole number"
            raise UsageError(f"strategy {name!r}: option {option} is {value!r}; it must be {kind}")
        if not isinstance(value, str) and not abs(value) <= MOST["strategy option"]:  # NaN is not, either
            most = MOST["strategy option"]
            raise UsageError(f"strategy {name!r}: option {option} is {value!r}; it must be within -{most}..{most}")
    return STRATEGIES[name](space, seed=seed, **(options or {}))


def completed(name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a stored run. A run stores all that there are, so one that names none of the `older` ones
    is of before there were these."""
    kind = STRATEGIES[name]
    parameters = [each.name for each in signature(kind.__init__).parameters.values() if each.kind is each.KEYWORD_ONLY]
    in_full = set(parameters) - {"seed"} - set(kind.older) <= set(stored)
    return {**kind.older, **stored} if in_full else dict(stored)
