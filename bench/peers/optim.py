"""torch.optim's own optimizers, in each implementation that they have: for-loop, foreach, fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from ..case import Case, Contender, NotApplicable, repeated
from ..rules import LR


@dataclass(frozen=True, slots=True)
class _Spec:
    """states: the optimizer's name of each state of ours."""

    kind: Callable[..., torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    states: Mapping[str, str]
    counts: bool = True
    implementations: tuple[str, ...] = field(default=("for-loop", "foreach", "fused"))


_ADAM_STATES: Final = {"m": "exp_avg", "v": "exp_avg_sq"}
SPECS: Final[Mapping[str, _Spec]] = {
    "sgd": _Spec(torch.optim.SGD, {}, {}, counts=False),
    "momentum": _Spec(torch.optim.SGD, {"momentum": 0.9}, {"m": "momentum_buffer"}, counts=False),
    "adam": _Spec(torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8}, _ADAM_STATES),
    "adamw": _Spec(torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}, _ADAM_STATES),
    "rmsprop": _Spec(
        torch.optim.RMSprop,
        {"alpha": 0.99, "eps": 1e-8},
        {"v": "square_avg"},
        implementations=("for-loop", "foreach"),
    ),
}
_FLAGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
IMPLEMENTATIONS: Final = tuple(_FLAGS)


def optimizer(case: Case, implementation: str) -> torch.optim.Optimizer:
    """The optimizer, with the tensors of the case as its state."""
    spec = SPECS.get(case.rule.name)
    if spec is None:
        raise NotApplicable(f"torch.optim has no {case.rule.name}")
    if implementation not in spec.implementations:
        raise NotApplicable(f"torch.optim.{spec.kind.__name__} has no {implementation} implementation")
    out = spec.kind(case.params, lr=LR, **spec.arguments, **_FLAGS[implementation])
    for i, p in enumerate(case.params):
        state: dict[str, Any] = {theirs: case.state[ours][i] for ours, theirs in spec.states.items()}
        if spec.counts:
            state["step"] = torch.tensor(float(case.step - 1))
        out.state[p] = state
    return out


def build(case: Case, implementation: str) -> Contender:
    return Contender(f"optim {implementation}", repeated(optimizer(case, implementation).step))
