"""Owns every name of torch's that torch does not promise to keep, and what is done with them. They serve to get around
torch's wrapper of step(), to divide many tensors at once, and to recognise fake ones.

Each is checked where it is used. No right answer depends on one of them: where a later torch lacks a name, a warning
names the versions, once, and the optimizers go the long way round.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch
from torch.autograd import profiler
from torch.optim import optimizer as torch_optimizer

TESTED: Final = "2.10 to 2.13"
_SLOWER: Final = "step() takes some microseconds longer"

Step = TypeVar("Step", bound=Callable[..., Any])


@functools.cache
def _lacks(name: str, consequence: str) -> None:
    warnings.warn(
        f"torch {torch.__version__} lacks {name}, which the torch that nos_ext is tested with ({TESTED}) has; "
        f"{consequence}. Install one of those, or a newer nos_ext",
        RuntimeWarning,
        stacklevel=2,
    )


def hooked(step: Step) -> Step:
    """Returns `step` with torch's hooks and profiler label, which cost nothing while nobody uses them. torch itself
    wraps the step() of every class that does not say that it is hooked, and that wrapper always costs microseconds.

    A class whose step() is another one, which torch wraps itself, says so in `_step_is_wrapped`.
    """
    wrap = getattr(torch.optim.Optimizer, "profile_hook_step", None)
    if wrap is None:
        _lacks("torch.optim.Optimizer.profile_hook_step", _SLOWER)
        return step  # as torch then wraps it
    in_full = wrap(step)

    @functools.wraps(step)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        self = args[0]
        if self._step_is_wrapped:
            return step(*args, **keywords)
        if torch.compiler.is_compiling():
            return in_full(*args, **keywords)
        try:
            observed = (
                profiler._is_profiler_enabled
                or self._optimizer_step_pre_hooks
                or self._optimizer_step_post_hooks
                or torch_optimizer._global_optimizer_pre_hooks
                or torch_optimizer._global_optimizer_post_hooks
            )
        except AttributeError as error:
            _lacks(str(error.name), _SLOWER)
            observed = True
        return in_full(*args, **keywords) if observed else step(*args, **keywords)

    wrapper.hooked = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]


def _no_modes() -> int:
    _lacks("torch._C._len_torch_dispatch_stack", "a step under FakeTensorMode changes parameters that are real")
    return 0


# Returns how many modes of torch are active, of which FakeTensorMode is one. It takes some 50 ns.
active_modes: Final[Callable[[], int]] = getattr(torch._C, "_len_torch_dispatch_stack", _no_modes)


def divide_all(tensors: Sequence[torch.Tensor], divisor: float) -> None:
    """Divides all tensors in place, in few launches on a GPU."""
    together = getattr(torch, "_foreach_div_", None)
    if together is None:
        _lacks("torch._foreach_div_", _SLOWER)
        for tensor in tensors:
            tensor.div_(divisor)
    elif tensors:
        together(tensors, divisor)


def is_fake(tensor: Any) -> bool:
    """Tells whether `tensor` is a FakeTensor, which has shape, dtype and device but no memory. This does not import its
    module.

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
    """Tells whether FakeTensorMode is active, so that new tensors are fake."""
    return active_modes() > 0 and is_fake(torch.empty(0, device="cpu"))
