"""Owns the internal decays of the paper: factors f(step) that rules multiply into their sign terms.

Each function returns f with f(step) for a step counted from 0, as in TensorFlow's sign_decay.py, of which these are
ports. They are plain Python; in rule text the operands ld, cd and rd are the same decays over T steps.

LinearCosineDecay, NoisyLinearCosineDecay, CosineDecay and StepDecay, for learning rates, are here by name; they need
torch and live in lr_schedulers.py. ``python -m nos_ext.schedules --plot out.svg`` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._numbers import number, positive

if TYPE_CHECKING:
    from .lr_schedulers import CosineDecay as CosineDecay
    from .lr_schedulers import LinearCosineDecay as LinearCosineDecay
    from .lr_schedulers import NoisyLinearCosineDecay as NoisyLinearCosineDecay
    from .lr_schedulers import StepDecay as StepDecay

__all__ = [
    "CosineDecay",
    "LinearCosineDecay",
    "NoisyLinearCosineDecay",
    "StepDecay",
    "cosine_decay",
    "linear_decay",
    "restart_decay",
]

Decay = Callable[[float], float]


def _check(decay_steps: float, num_periods: float = 1.0, zero_after: float | None = None) -> None:
    positive("decay_steps", decay_steps, "a positive number of steps")
    positive("num_periods", num_periods)
    if zero_after is not None and not number("zero_after", zero_after, "a number of periods, or None") >= 0:
        raise ValueError(f"zero_after is {zero_after!r}; pass a number of periods, or None")


def linear_decay(decay_steps: float) -> Decay:
    """Returns a decay that falls linearly from 1 at step 0 to 0 at `decay_steps`, and stays 0."""
    _check(decay_steps)

    def decay(step: float) -> float:
        return max(0.0, (decay_steps - min(step, decay_steps)) / decay_steps)

    return decay


def cosine_decay(decay_steps: float, num_periods: float = 0.5, zero_after: float | None = None) -> Decay:
    """Returns the decay 0.5 * (1 + cos(2 pi num_periods step / decay_steps)).

    Args:
        decay_steps: steps of the whole decay.
        num_periods: full cosines in `decay_steps`; 0.5 falls from 1 to 0 once.
        zero_after: 0 once this many periods are over; never by default.
    """
    _check(decay_steps, num_periods, zero_after)

    def decay(step: float) -> float:
        periods = num_periods * step / decay_steps
        if zero_after is not None and periods >= zero_after:
            return 0.0
        return 0.5 * (1.0 + math.cos(2.0 * math.pi * periods))

    return decay


def restart_decay(decay_steps: float, num_periods: float = 1.0, zero_after: float | None = None) -> Decay:
    """Returns cosines that restart at 1: 0.5 * (1 + cos(pi * (num_periods * step mod decay_steps) / decay_steps)).

    Args:
        decay_steps: steps of the whole decay.
        num_periods: half cosines in `decay_steps`, each from 1 to 0.
        zero_after: 0 once this many periods are over; never by default.
    """
    _check(decay_steps, num_periods, zero_after)

    def decay(step: float) -> float:
        if zero_after is not None and num_periods * step / decay_steps >= zero_after:
            return 0.0
        return 0.5 * (1.0 + math.cos(math.pi * (num_periods * step % decay_steps) / decay_steps))

    return decay


_SCHEDULERS = ("CosineDecay", "LinearCosineDecay", "NoisyLinearCosineDecay", "StepDecay")


def __getattr__(name: str) -> Any:
    if name not in _SCHEDULERS:
        raise AttributeError(f"nos_ext.schedules has no '{name}'")
    try:
        from . import lr_schedulers
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            f"nos_ext.schedules.{name} needs torch; install it, or `pip install nos-ext[torch]`"
        ) from error
    return getattr(lr_schedulers, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_SCHEDULERS})


if __name__ == "__main__":
    from .optim._decay_plot import main

    raise SystemExit(main())
