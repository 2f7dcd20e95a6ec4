"""Owns the way around torch's wrapper of step(): hooks and profiler labels cost microseconds even where there are none.

torch.optim.Optimizer puts `profile_hook_step` around the step() of every class that does not say that it is hooked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.autograd import profiler
from torch.optim import optimizer as torch_optimizer

Step = TypeVar("Step", bound=Callable[..., Any])


def hooked(step: Step) -> Step:
    """`step` with torch's hooks and profiler label where there is somebody to see them.

    A class whose step() is another one, which torch wraps itself, says so in `_step_is_wrapped`.
    """
    in_full = torch.optim.Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        self = args[0]
        if self._step_is_wrapped:
            return step(*args, **keywords)
        if (
            profiler._is_profiler_enabled
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.compiler.is_compiling()
        ):
            return in_full(*args, **keywords)
        return step(*args, **keywords)

    wrapper.hooked = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]
