"""pytorch_optimizer's optimizers written as rules: the same numbers, over 50 steps in float64 and in float32.

The rules stand here as the papers have them, with the peer's defaults; library rules are named. Its package ships no
tests of its own; what its users rely on besides (closures, groups, checkpoints) is in the other files of this folder.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from nos_ext.optim import RuleOptimizer, library

peers = pytest.importorskip("pytorch_optimizer")

STEPS = 50
FLOAT32_INSIDE = ("QHAdam", "LaProp")  # weights and step sizes in float32 beside parameters of float64
CASES: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [  # peer, its arguments, rule, the rule's arguments
    ("Lion", {"lr": 1e-2}, library.lion, {}),
    ("Lion", {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.95, 0.98)}, library.lion, {"weight_decay": 0.1, "beta1": 0.95, "beta2": 0.98}),
    ("Lion", {"lr": 1e-2, "maximize": True}, library.lion, {"maximize": True}),
    ("Tiger", {"lr": 1e-2, "weight_decay": 0.0}, library.signum, {"beta": 0.965}),
    ("Tiger", {"lr": 1e-2, "weight_decay": 0.1}, library.signum, {"beta": 0.965, "weight_decay": 0.1}),
    ("SignSGD", {"lr": 1e-2}, library.signum, {}),
    ("SGDW", {"lr": 1e-2}, library.sgd, {}),
    ("AdaBelief", {"lr": 1e-2}, library.adabelief, {}),
    ("AdaBelief", {"lr": 1e-2, "weight_decay": 0.1}, library.adabelief, {"weight_decay": 0.1}),
    ("QHAdam", {"lr": 1e-2, "nus": (0.7, 1.0)}, """
def qhadam(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, nu1=0.7, eps=1e-8):
    m = m + (g - m) * (1 - beta1) / (1 - beta1 ** t)
    v = v + (g ** 2 - v) * (1 - beta2) / (1 - beta2 ** t)
    return p - lr * (nu1 * m + (1 - nu1) * g) / (sqrt(v) + eps), m, v
""", {}),
    ("AdaMax", {"lr": 1e-2}, library.adamax, {}),
    ("PAdam", {"lr": 1e-2}, """
def padam(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, partial=0.25, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t) * m / pow(sqrt(v) + eps, 2 * partial), m, v
""", {}),
    ("LaProp", {"lr": 1e-2}, """
def laprop(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-15):
    v = beta2 * v + (1 - beta2) * g ** 2
    m = beta1 * m + (1 - beta1) * lr * g / ((sqrt(v + 1e-15) + eps) / sqrt(1 - beta2 ** t))
    return p - m / (1 - beta1 ** t), m, v
""", {}),
    ("Adan", {"lr": 1e-2}, library.adan, {}),
    ("Adan", {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.8, 0.95)}, library.adan, {"weight_decay": 0.1, "betas": (0.9, 0.8, 0.95)}),
    ("AdEMAMix", {"lr": 1e-2}, library.ademamix, {}),
    (
        "AdEMAMix",
        {"lr": 1e-2, "weight_decay": 0.1, "weight_decouple": True, "t_alpha_beta3": 40.0},
        library.ademamix,
        {"weight_decay": 0.1, "warmup_steps": 40},
    ),
    ("ScheduleFreeAdamW", {"lr": 1e-2}, library.schedule_free_adamw, {}),
    (
        "ScheduleFreeAdamW",
        {"lr": 1e-2, "weight_decay": 0.1, "warmup_steps": 20, "betas": (0.95, 0.99)},
        library.schedule_free_adamw,
        {"weight_decay": 0.1, "warmup_steps": 20, "betas": (0.95, 0.99)},
    ),
    ("StableAdamW", {"lr": 1e-2, "kahan_sum": False}, library.stable_adamw, {}),
    ("StableAdamW", {"lr": 1e-2, "kahan_sum": False, "weight_decay": 0.1}, library.stable_adamw, {"weight_decay": 0.1}),
    ("Ano", {"lr": 1e-2}, """
def ano(p, g, m, v, *, lr, beta1=0.92, beta2=0.99, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * sign(g ** 2 - v) * g ** 2
    return p - lr * abs(g) * sign(m) / (sqrt(v / (1 - beta2 ** t)) + eps), m, v
""", {}),
]  # fmt: skip


# Rules that are others than the peer's of that name, and how the peer's differ. tests/rule/test_library.py compares these
# with their papers.
OTHERS = {
    "lamb": "averages are not corrected for their start at zero",
    "lars": "vectors are left to plain momentum; matrices are compared below",
    "adafactor": "second moments of matrices are factored",
}


def trained(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(17)
    params = optimizer.param_groups[0]["params"]
    for _ in range(STEPS):
        for p in params:
            p.grad = torch.randn(p.shape, dtype=torch.float64, generator=make).to(dtype)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
@pytest.mark.parametrize(("peer", "arguments", "rule", "hyper"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_equals_the_peer(
    peer: str, arguments: dict[str, Any], rule: Any, hyper: dict[str, Any], dtype: torch.dtype, bound: float
) -> None:
    if peer in FLOAT32_INSIDE:
        bound = max(bound, 1e-6)
    make = torch.Generator().manual_seed(19)
    start = [torch.randn(s, dtype=torch.float64, generator=make).to(dtype) for s in ((6, 5), (11,))]
    theirs = getattr(peers, peer)([Parameter(s.clone()) for s in start], **arguments)
    ours = RuleOptimizer([Parameter(s.clone()) for s in start], rule, arguments["lr"], **hyper)
    got, want = trained(ours, dtype), trained(theirs, dtype)
    for a, b, s in zip(got, want, start, strict=True):
        assert (b - s).abs().max() > 10 * bound, "the peer has moved"
        torch.testing.assert_close(a, b, rtol=bound, atol=bound)


def test_every_library_rule_of_a_name_that_the_peer_has_is_compared() -> None:
    """Under the same name two packages should mean the same rule."""
    theirs = {name.lower() for name in peers.get_supported_optimizers()} | {"signum"}
    shared = {name for name in library.names() if name.replace("_", "") in theirs}
    compared = {rule.name for _, _, rule, _ in CASES if not isinstance(rule, str)}
    of_torch = {name for name in shared if library.ENTRIES[name].torch}  # tests/rule/test_library.py compares these
    assert shared <= compared | of_torch | OTHERS.keys()
    assert OTHERS.keys() <= shared


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_of_a_matrix(weight_decay: float) -> None:
    start = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(19))
    options = {"lr": 0.1, "weight_decay": weight_decay, "trust_coefficient": 0.1}
    theirs = trained(peers.LARS([Parameter(start.clone())], **options), torch.float64)
    ours = trained(RuleOptimizer([Parameter(start.clone())], library.lars, **options), torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
