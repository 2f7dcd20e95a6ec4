"""Owns every name of torch's that torch does not promise to keep. Each is checked where it is used.

No right answer depends on one of them: where a later torch lacks a name, a warning names the versions, once, and the
optimizers go the long way round.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.autograd import profiler
from torch.optim import optimizer as torch_optimizer

TESTED: Final = "2.10 to 2.13"


@functools.cache
def _lacks(name: str, consequence: str) -> None:
    warnings.warn(
        f"torch {torch.__version__} lacks {name}, which the torch that nos_ext is tested with ({TESTED}) has; "
        f"{consequence}. Install one of those, or a newer nos_ext",
        RuntimeWarning,
        stacklevel=2,
    )


def is_observed(optimizer: Any) -> bool:
    """Whether a hook or a profiler wants to see the step of `optimizer`. Without an answer they are served."""
    try:
        return bool(
            profiler._is_profiler_enabled
            or optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
        )
    except AttributeError as error:
        _lacks(str(error.name), "step() takes some microseconds longer")
        return True


def with_hooks(step: Callable[..., Any]) -> Callable[..., Any] | None:
    """`step` as torch wraps it, with hooks and profiler label; None where torch keeps the wrapper to itself."""
    wrap = getattr(torch.optim.Optimizer, "profile_hook_step", None)
    if wrap is None:
        _lacks("torch.optim.Optimizer.profile_hook_step", "step() takes some microseconds longer")
        return None
    wrapped: Callable[..., Any] = wrap(step)
    return wrapped


def is_fake(tensor: Any) -> bool:
    """Whether `tensor` is a FakeTensor: shape, dtype and device without memory. Does not import their module.

    The engine refuses a tensor without memory that is not recognised here.
    """
    module = sys.modules.get("torch._subclasses.fake_tensor")
    if module is None:
        return False
    try:
        return isinstance(tensor, module.FakeTensor)
    except AttributeError:
        _lacks("torch._subclasses.fake_tensor.FakeTensor", "optimizers refuse fake parameters")
        return False


def in_fake_mode() -> bool:
    """Whether new tensors are fake: FakeTensorMode is active."""
    try:
        if not torch._C._len_torch_dispatch_stack():  # the usual case, in some 50 ns
            return False
    except AttributeError:
        _lacks("torch._C._len_torch_dispatch_stack", "a step under FakeTensorMode changes parameters that are real")
        return False
    return is_fake(torch.empty(0, device="cpu"))
