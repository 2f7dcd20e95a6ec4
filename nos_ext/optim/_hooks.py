"""Owns the way around torch's wrapper of step(): hooks and profiler labels cost microseconds even where there are none.

torch.optim.Optimizer wraps the step() of every class that does not say that it is hooked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ._torch import is_observed, with_hooks

Step = TypeVar("Step", bound=Callable[..., Any])


def hooked(step: Step) -> Step:
    """`step` with torch's hooks and profiler label where there is somebody to see them.

    A class whose step() is another one, which torch wraps itself, says so in `_step_is_wrapped`.
    """
    in_full = with_hooks(step)
    if in_full is None:
        return step  # torch wraps it

    @functools.wraps(step)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        self = args[0]
        if self._step_is_wrapped:
            return step(*args, **keywords)
        if torch.compiler.is_compiling() or is_observed(self):
            return in_full(*args, **keywords)
        return step(*args, **keywords)

    wrapper.hooked = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]
