"""Owns RULES, the update rules of the benches: text, hyperparameters, and the scalars of a step for the other engines.

Each contender has its own table from rule name to its own form of the rule (bench/peers/); tests/bench checks that all
of them compute what the engine computes, and that no table has a rule that is not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LR: Final = 1e-3
TOTAL_STEPS: Final = 1000


@dataclass(frozen=True, slots=True)
class BenchRule:
    """An update rule and what its peers need to know of it.

    states: names of the state tensors; the first ones of m, v.
    hyper: every hyperparameter but lr, at the default that the text has.
    scalars: (t, **hyper) -> what the step computes once, in double, in the order that bench/native/bodies.h reads.
    native: hand-fused passes of bench/native/passes.cc by label.
    """

    name: str
    text: str
    states: tuple[str, ...]
    hyper: Mapping[str, float]
    scalars: Callable[..., dict[str, float]]
    native: Mapping[str, str]

    @property
    def tensors(self) -> int:
        """Arrays that a step touches: p, g and the states."""
        return 2 + len(self.states)

    @property
    def bytes_per_element(self) -> int:
        """fp32 read (all arrays) and written (all but g)."""
        return 4 * (self.tensors + self.tensors - 1)

    def at(self, t: int) -> dict[str, float]:
        """The scalars of step t."""
        return self.scalars(t, **self.hyper)


def _sgd(t: int) -> dict[str, float]:
    return {"lr": LR}


def _momentum(t: int, beta: float) -> dict[str, float]:
    return {"lr": LR, "beta": beta}


def _adam(t: int, beta1: float, beta2: float, eps: float, weight_decay: float | None = None) -> dict[str, float]:
    out = {"step": LR / (1 - beta1**t), "beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2}
    out |= {"root": math.sqrt(1 - beta2**t), "eps": eps}
    return out if weight_decay is None else out | {"keep": 1 - LR * weight_decay}


def _lion(t: int, beta1: float, beta2: float, weight_decay: float) -> dict[str, float]:
    keep = 1 - LR * weight_decay
    return {"lr": LR, "keep": keep, "beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2}


def _rmsprop(t: int, alpha: float, eps: float) -> dict[str, float]:
    return {"lr": LR, "alpha": alpha, "rest": 1 - alpha, "eps": eps}


def _powersign(t: int, beta: float, base: float) -> dict[str, float]:
    return {"lr": LR, "beta": beta, "rest": 1 - beta, "power": math.log(base)}


def cosine(t: int) -> float:
    """The internal cosine decay at step t: 1 at the first step, 0 after TOTAL_STEPS."""
    return 0.5 * (1 + math.cos(math.pi * (t - 1) / TOTAL_STEPS))


def _powersign_cd(t: int, beta: float, base: float) -> dict[str, float]:
    return {"lr": LR, "beta": beta, "rest": 1 - beta, "power": math.log(base) * cosine(t)}


def _addsign(t: int, beta: float, alpha: float) -> dict[str, float]:
    return {"lr": LR, "beta": beta, "rest": 1 - beta, "alpha": alpha}


def _random15(t: int, beta: float) -> dict[str, float]:
    return {"lr": LR, "beta": beta, "rest": 1 - beta, "exponent": 0.7, "bound": 0.1, "eps": 1e-8}


def _random40(t: int, beta1: float, beta2: float) -> dict[str, float]:
    out = {"lr": LR, "beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2}
    return out | {"eps": 1e-8, "small": 0.01, "exponent": 0.3}


_ADAM_HYPER: Final = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
_SELECT: Final = {"hand-fused": "powersign", "hand-fused select": "powersign_select"}

_TABLE: Final = (
    BenchRule(
        "sgd",
        "def sgd(p, g, *, lr):\n    return p - lr * g\n",
        (),
        {},
        _sgd,
        {"hand-fused": "sgd"},
    ),
    BenchRule(
        "momentum",
        """
def momentum(p, g, m, *, lr, beta=0.9):
    m = beta * m + g
    return p - lr * m, m
""",
        ("m",),
        {"beta": 0.9},
        _momentum,
        {"hand-fused": "momentum"},
    ),
    BenchRule(
        "adam",
        """
def adam(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - lr / (1 - beta1 ** t) * m / (sqrt(v) / sqrt(1 - beta2 ** t) + eps), m, v
""",
        ("m", "v"),
        _ADAM_HYPER,
        _adam,
        {"hand-fused": "adam"},
    ),
    BenchRule(
        "adamw",
        """
def adamw(p, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    p = p * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - lr / (1 - beta1 ** t) * m / (sqrt(v) / sqrt(1 - beta2 ** t) + eps), m, v
""",
        ("m", "v"),
        _ADAM_HYPER | {"weight_decay": 0.01},
        _adam,
        {"hand-fused": "adamw"},
    ),
    BenchRule(
        "lion",
        """
def lion(p, g, m, *, lr, beta1=0.9, beta2=0.99, weight_decay=0.01):
    u = sign(beta1 * m + (1 - beta1) * g)
    return p * (1 - lr * weight_decay) - lr * u, beta2 * m + (1 - beta2) * g
""",
        ("m",),
        {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01},
        _lion,
        {"hand-fused": "lion"},
    ),
    BenchRule(
        "rmsprop",
        """
def rmsprop(p, g, v, *, lr, alpha=0.99, eps=1e-8):
    v = alpha * v + (1 - alpha) * g ** 2
    return p - lr * g / (sqrt(v) + eps), v
""",
        ("v",),
        {"alpha": 0.99, "eps": 1e-8},
        _rmsprop,
        {"hand-fused": "rmsprop"},
    ),
    BenchRule(
        "powersign",
        """
def powersign(p, g, m, *, lr, beta=0.9, base=e):
    m = beta * m + (1 - beta) * g
    return p - lr * exp(log(base) * sign(g) * sign(m)) * g, m
""",
        ("m",),
        {"beta": 0.9, "base": math.e},
        _powersign,
        _SELECT,
    ),
    BenchRule(
        "powersign_cd",
        """
def powersign_cd(p, g, m, *, lr, beta=0.9, base=e):
    m = beta * m + (1 - beta) * g
    cd = 0.5 * (1 + cos(pi * (t - 1) / T))
    return p - lr * exp(log(base) * cd * sign(g) * sign(m)) * g, m
""",
        ("m",),
        {"beta": 0.9, "base": math.e},
        _powersign_cd,
        _SELECT,
    ),
    BenchRule(
        "addsign",
        """
def addsign(p, g, m, *, lr, beta=0.9, alpha=1.0):
    m = beta * m + (1 - beta) * g
    return p - lr * (alpha + sign(g) * sign(m)) * g, m
""",
        ("m",),
        {"beta": 0.9, "alpha": 1.0},
        _addsign,
        {"hand-fused": "addsign"},
    ),
    # An update of 15 operations beside the moving average, of the kind that a search proposes: pow, exp and log in one.
    BenchRule(
        "random15",
        """
def random15(p, g, m, *, lr, beta=0.9):
    m = beta * m + (1 - beta) * g
    a = abs(m)
    x = a ** 0.7 * exp(sign(g) * sign(m)) * clip(g, -0.1, 0.1)
    return p - lr * (x + log(g ** 2 + 1e-8) * sqrt(a)), m
""",
        ("m",),
        {"beta": 0.9},
        _random15,
        {"hand-fused": "random15"},
    ),
    # An update of 40 operations: two each of tanh, exp and square, log, pow, rsqrt, sqrt, the rest cheap.
    BenchRule(
        "random40",
        """
def random40(p, g, m, v, *, lr, beta1=0.9, beta2=0.999):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    a = tanh(m) - clip(g, -0.01, 0.01)
    b = exp(-abs(g)) * sign(m)
    c = sqrt(v + 1e-8)
    d = g / c
    h = log(1 + d ** 2)
    i = max(a * b, min(d, h))
    j = where(g > p, i, h)
    k = j * abs(p) ** 0.3
    l = rsqrt(1 + k ** 2)
    n = tanh(l * m / c)
    o = n - 0.5 * p * exp(-v)
    q = clip(o + b, -1, 1)
    return p - lr * (q + a * h - sign(d) * i), m, v
""",
        ("m", "v"),
        {"beta1": 0.9, "beta2": 0.999},
        _random40,
        {"hand-fused": "random40"},
    ),
)

RULES: Final[Mapping[str, BenchRule]] = {rule.name: rule for rule in _TABLE}
