"""Owns AddSign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from . import library
from ._sign_decay import SignDecay
from .rule_optimizer import RuleOptimizer


class AddSign(RuleOptimizer):
    """AddSign multiplies the gradient by alpha + 1 where its sign agrees with that of its running average, and by alpha
    - 1 where the signs differ.

        u = (alpha + f(t) * sign(g) * sign(m)) * g,   m = beta * m + (1 - beta) * g

    The rule and the defaults are those of TensorFlow's contrib AddSignOptimizer, which is the authors' release of
    Bello, Zoph, Vasudevan, Le: Neural Optimizer Search with Reinforcement Learning (ICML 2017). With alpha = 1 an
    element whose signs disagree stands still; with alpha < 1 it goes up the gradient.

    Args:
        params: parameters, named parameters, or dicts that define param groups.
        lr: learning rate, a number or a tensor of one element.
        alpha: what the sign term is added to.
        beta: decay of the running average m, which starts at 0 and is not bias-corrected.
        sign_decay: the internal decay f: None for 1, "linear", "cosine" or "restart" over `total_steps`, a function of
            the step counted from 0 (see nos_ext.schedules; functions are not saved in checkpoints), or a number.
        weight_decay: decoupled weight decay, as in AdamW; not part of the paper's rule.
        betas: beta as a tuple of one, in the place of `beta`, for callers that know this name only.
        maximize, capturable, seed, total_steps, stochastic_rounding, master_weights: see `RuleOptimizer`.
        state_dtype, clip_norm, foreach, fused, differentiable: see `RuleOptimizer`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 0.1,
        alpha: float = 1.0,
        beta: float = 0.9,
        sign_decay: SignDecay = None,
        weight_decay: float = 0.0,
        *,
        betas: Sequence[float] | None = None,
        maximize: bool = False,
        capturable: bool = False,
        seed: int = 0,
        total_steps: float | None = None,
        stochastic_rounding: bool = False,
        master_weights: bool = False,
        state_dtype: str | torch.dtype | None = None,
        clip_norm: float | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        own: dict[str, Any] = {"beta": beta} if betas is None else {"betas": betas}
        super().__init__(
            params, library.addsign, lr, alpha=alpha, sign_decay=sign_decay, weight_decay=weight_decay,
            **own, maximize=maximize, capturable=capturable, seed=seed, total_steps=total_steps,
            stochastic_rounding=stochastic_rounding, master_weights=master_weights,
            state_dtype=state_dtype, clip_norm=clip_norm, foreach=foreach, fused=fused, differentiable=differentiable,
        )  # fmt: skip
