"""Owns CONTENDERS, the table of all that a rule can be run with; one module each for the ways of writing a rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

from ..case import Case, Contender, NotApplicable, Unavailable
from . import compiled, eager, engine, foreach, native, numexpr_, optim, packages

ENGINE: Final = engine.ENGINE
LIMIT: Final = "limit"

CONTENDERS: Final[Mapping[str, Callable[[Case], Contender]]] = {
    LIMIT: native.limit,
    ENGINE: engine.build,
    **{label: partial(native.build, label=label) for label in native.LABELS},
    "RuleOptimizer": engine.optimizer,
    "eager": eager.build,
    "_foreach": foreach.build,
    **{f"optim {kind}": partial(optim.build, implementation=kind) for kind in optim.IMPLEMENTATIONS},
    **{name: partial(packages.build, package=name) for name in packages.SPECS},
    "torch.compile": compiled.build,
    "numexpr": numexpr_.build,
}


def contenders(case: Case, leave_out: Collection[str] = ()) -> tuple[list[Contender], dict[str, str]]:
    """All contenders of a case, and why one that could have the rule is missing."""
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for name, build in CONTENDERS.items():
        try:
            if name in leave_out:
                raise Unavailable("left out of this run")
            found.append(build(case))
        except NotApplicable:
            pass
        except Unavailable as reason:
            missing[name] = str(reason)
    return found, missing


__all__ = ["CONTENDERS", "ENGINE", "LIMIT", "contenders"]
