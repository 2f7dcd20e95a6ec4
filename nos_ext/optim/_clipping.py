"""Owns clip_norm: a rule whose gradients are first clipped by their global norm, as by torch.nn.utils.clip_grad_norm_.

The clipped rule is a rule like any other. So the norm is a reduction of the engine, and the gradients themselves are
not written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .._numbers import number, plain, shown
from ..rule import MatrixProgram, Program, RuleError
from ..rule.compile import encode
from ..rule.definition import Definition
from ..rule.expr import GRAD, carry, constant, hyper, postorder, rebuilt
from ..rule.program import SplitProgram

KEY: Final = "clip_norm"
_EPSILON: Final = 1e-6  # torch's
_WANTED: Final = "a number above 0, which may be inf, or None"


@functools.lru_cache(maxsize=64)
def clipped(program: Program) -> Program:
    """Returns the rule with g * min(1, clip_norm / (global_norm(g) + 1e-6)) for every g. `clip_norm` is the last of its
    hyperparameters."""
    rule = program.rule
    if KEY in rule.state_names:
        raise RuleError(f"rule '{rule.name}' has a state named '{KEY}', so it cannot be clipped; rename the state")
    norm = rebuilt("global_norm", (GRAD,))
    quotient = rebuilt("div", (hyper(KEY), rebuilt("add", (norm, constant(_EPSILON)))))
    new = {GRAD: rebuilt("mul", (GRAD, rebuilt("min", (constant(1.0), quotient))))}
    carry(postorder(rule.simplified), new)
    outputs = [new[x] for x in rule.simplified]
    if all(node is not norm for node in postorder(outputs)):
        # The rule does not read g, but the gradients of its parameters count all the same.
        never = rebuilt("lt", (norm, constant(0.0)))
        outputs[0] = rebuilt("where", (never, GRAD, outputs[0]))
    definition = Definition(
        rule.name,
        rule.state_names,
        {**rule.hyperparameters, KEY: 1.0},
        outputs,
        sites={new[draw]: site for draw, site in rule.sites.items() if draw in new},
        per_tensor=rule.per_tensor_states,
    )
    return Program(encode(definition))


def running(program: Program | MatrixProgram | SplitProgram, clips: bool) -> Program:
    """Returns what the engine runs for a rule in a step: of one that is cut into stages the last one, and where the
    gradients are clipped the clipped form."""
    last = program.stages[-1] if isinstance(program, MatrixProgram | SplitProgram) else program
    return clipped(last) if clips else last


def coefficient(clip_norm: float, norm: float) -> float:
    """Returns what the gradients are multiplied with, as the clipped rule does it."""
    return math.nan if math.isnan(norm) else min(1.0, clip_norm / (norm + _EPSILON))


def checked_clip_norm(value: Any) -> Any:
    """Returns the value of `clip_norm` as Python's. Raises TypeError or ValueError for one that has no meaning."""
    value = plain(value)
    if isinstance(value, bool):
        raise TypeError(f"{KEY} is {value}; pass {_WANTED}")
    if value is not None and not number(KEY, value, _WANTED) > 0:
        raise ValueError(f"{KEY} is {shown(value)}; pass {_WANTED}")
    return value


def common_clip_norm(groups: Iterable[Mapping[str, Any]]) -> float | None:
    """Returns the `clip_norm` of all param groups. Raises ValueError if they differ, and what `checked_clip_norm`
    raises."""
    found = [checked_clip_norm(group[KEY]) for group in groups]
    for i, value in enumerate(found):
        if value != found[0]:
            raise ValueError(
                f"{KEY} is {found[0]} in param_groups[0] and {value} in param_groups[{i}]; the norm is that of all "
                "groups, so set the same value in all of them"
            )
    return None if not found or found[0] is None else float(found[0])
