"""Optimizers of other packages that have one of our rules; each is left out where it is not installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from ..case import Case, Contender, NotApplicable, Unavailable, repeated
from ..rules import LR

_LION: Final[dict[str, Any]] = {"betas": (0.9, 0.99), "weight_decay": 0.01}
# package -> rule -> class, arguments, the package's name of our state
SPECS: Final[Mapping[str, Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, str]]]]] = {
    "lion_pytorch": {"lion": ("Lion", _LION, {"m": "exp_avg"})},
    "pytorch_optimizer": {"lion": ("Lion", {**_LION, "foreach": True}, {"m": "exp_avg"})},
}


def build(case: Case, package: str) -> Contender:
    if case.rule.name not in SPECS[package]:
        raise NotApplicable(f"{package} has no {case.rule.name}")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"{package} is not installed") from error
    kind, arguments, states = SPECS[package][case.rule.name]
    out = getattr(module, kind)(case.params, lr=LR, **arguments)
    for i, p in enumerate(case.params):
        out.state[p] = {theirs: case.state[ours][i] for ours, theirs in states.items()}
    return Contender(package, repeated(out.step))
