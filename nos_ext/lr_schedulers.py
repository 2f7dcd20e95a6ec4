"""Owns the paper's learning-rate decays as torch LRSchedulers. `nos_ext.schedules` has them by the same names.

Each sets lr to the initial lr times a factor of the step: `step()` belongs after every optimizer step. Where something
else changed the lr - a scheduler chained to this one, or the user - the lr is multiplied by the ratio of this step's
factor and the last one's instead, which keeps that change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ._numbers import finite, plain
from .optim._lr_factors import Factor, cosine, gaussian, linear_cosine, stepwise

__all__ = ["CosineDecay", "LinearCosineDecay", "NoisyLinearCosineDecay", "StepDecay"]


class _FactorLR(LRScheduler, ABC):
    """A _FactorLR sets lr to the initial lr times a factor of the step. Subclasses hold plain numbers and say what the
    factor is."""

    def __init__(self, optimizer: Optimizer, last_epoch: int, **numbers: Any) -> None:
        for name, value in numbers.items():
            finite(name, value)
            setattr(self, name, plain(value))
        self._factor()  # raises before anything is written into the optimizer
        super().__init__(optimizer, last_epoch)

    @abstractmethod
    def _factor(self) -> Factor:
        """Returns the factor as a function of the step, made of the numbers that the object holds."""

    def get_lr(self) -> list[float | torch.Tensor]:
        """Returns the lr of each group at `last_epoch`."""
        factor = self._factor()
        now = factor(self.last_epoch)
        before = factor(self.last_epoch - 1) if self.last_epoch > 0 else 1.0
        out: list[float | torch.Tensor] = []
        for i, group in enumerate(self.optimizer.param_groups):
            # A group that was added since has the lr with which it came.
            base = self.base_lrs[i] if i < len(self.base_lrs) else None
            if base is not None and (before == 0.0 or float(group["lr"]) == float(base * before)):
                out.append(base * now)
            else:
                out.append(group["lr"] * (now / before) if before else group["lr"])
        return out

    def _get_closed_form_lr(self) -> list[float | torch.Tensor]:
        now = self._factor()(self.last_epoch)
        return [base * now for base in self.base_lrs]


class LinearCosineDecay(_FactorLR):
    """Decays lr by the linear cosine decay, which the search found: (alpha + linear) * cosine + beta.

    With s = min(step, D): linear = (D - s) / D, cosine = 0.5 * (1 + cos(2 pi num_periods s / D)). It is more aggressive
    than cosine decay, so that a larger initial learning rate is usual. As TensorFlow's linear_cosine_decay.

    Args:
        optimizer: whose learning rates are scheduled.
        decay_steps: D; the factor is held from there on.
        num_periods: periods of the cosine in D steps.
        alpha: added to the linear part.
        beta: the floor: the factor at the end for the defaults.
        last_epoch: the last step that has been taken, or -1 at the start.
    """

    decay_steps: float
    num_periods: float
    alpha: float
    beta: float

    def __init__(
        self,
        optimizer: Optimizer,
        decay_steps: float,
        num_periods: float = 0.5,
        alpha: float = 0.0,
        beta: float = 0.001,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(
            optimizer, last_epoch, decay_steps=decay_steps, num_periods=num_periods, alpha=alpha, beta=beta
        )

    def _factor(self) -> Factor:
        return linear_cosine(self.decay_steps, self.num_periods, self.alpha, self.beta)


class NoisyLinearCosineDecay(_FactorLR):
    """Decays lr by the linear cosine decay with Gaussian noise: (alpha + linear + noise) * cosine + beta.

    The variance at step s is initial_variance / (1 + s) ** variance_decay. The noise is a function of (seed, step): a
    resumed run draws what the uninterrupted one would have. As in TensorFlow's noisy_linear_cosine_decay nothing stops
    the factor from becoming negative early on; choose a smaller initial_variance where that matters.

    Args:
        optimizer: whose learning rates are scheduled.
        decay_steps: the factor is held from there on.
        initial_variance: variance of the noise at step 0.
        variance_decay: the power with which the variance falls.
        num_periods, alpha, beta: as for LinearCosineDecay.
        seed: key of the noise.
        last_epoch: the last step that has been taken, or -1 at the start.
    """

    decay_steps: float
    num_periods: float
    alpha: float
    beta: float
    initial_variance: float
    variance_decay: float
    seed: int

    def __init__(
        self,
        optimizer: Optimizer,
        decay_steps: float,
        initial_variance: float = 1.0,
        variance_decay: float = 0.55,
        num_periods: float = 0.5,
        alpha: float = 0.0,
        beta: float = 0.001,
        seed: int = 0,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(
            optimizer, last_epoch, decay_steps=decay_steps, num_periods=num_periods, alpha=alpha, beta=beta,
            initial_variance=initial_variance, variance_decay=variance_decay, seed=seed,
        )  # fmt: skip

    def _factor(self) -> Factor:
        noise = gaussian(self.initial_variance, self.variance_decay, self.seed)
        return linear_cosine(self.decay_steps, self.num_periods, self.alpha, self.beta, noise)


class CosineDecay(_FactorLR):
    """Decays lr by half a cosine, from the initial lr to `alpha` times it.

    Args:
        optimizer: whose learning rates are scheduled.
        decay_steps: the factor is held from there on.
        alpha: the factor at the end.
        last_epoch: the last step that has been taken, or -1 at the start.
    """

    decay_steps: float
    alpha: float

    def __init__(self, optimizer: Optimizer, decay_steps: float, alpha: float = 0.0, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, decay_steps=decay_steps, alpha=alpha)

    def _factor(self) -> Factor:
        return cosine(self.decay_steps, self.alpha)


class StepDecay(_FactorLR):
    """Multiplies lr by `gamma` after every `step_size` steps.

    Args:
        optimizer: whose learning rates are scheduled.
        step_size: steps of one level.
        gamma: the factor from one level to the next.
        last_epoch: the last step that has been taken, or -1 at the start.
    """

    step_size: int
    gamma: float

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, step_size=step_size, gamma=gamma)

    def _factor(self) -> Factor:
        return stepwise(self.step_size, self.gamma)
