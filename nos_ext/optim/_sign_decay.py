"""Owns the internal decay f: what `sign_decay` may be in PowerSign and AddSign, as classes and as rules of the library.

f multiplies the sign term. It is None for the rule's default, a name, a function of the step, a number or a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .._numbers import number, shown
from ..schedules import cosine_decay, linear_decay, restart_decay
from ._values import Scalar

SignDecay = Callable[[int], float] | str | float | None

_NAMED: Final[dict[str, Callable[[float], Callable[[float], float]]]] = {
    "linear": linear_decay,
    "cosine": cosine_decay,
    "restart": restart_decay,
}


def sign_decay(value: Any, default: float | None, total_steps: Any) -> Scalar:
    """Returns the number, tensor or function that `value` stands for. Raises ValueError for a name that is unknown, or
    that lacks its length.

    Args:
        value: what the param group has.
        default: the rule's.
        total_steps: the param group's; the length of a decay that is named.
    """
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        return value  # type: ignore[no-any-return]
    if value not in _NAMED:
        raise ValueError(
            f"sign_decay is {shown(value)}; pass {', '.join(map(repr, _NAMED))}, a function of the step counted from "
            "0, a number, or None"
        )
    if total_steps is None:
        raise ValueError(f"sign_decay is {value!r} but total_steps is None; pass the length of the training in steps")
    return _NAMED[value](number("total_steps", total_steps))
