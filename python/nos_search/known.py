"""Owns the known optimizers: how each is written in each space, and which of them a command sets beside other rules.

A name is that of the rule in nos_ext.optim.library, where that has it. This module imports nothing, so that help texts
may list the names.
"""

from __future__ import annotations

from dataclasses import dataclass

Lines = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class KnownRule:
    """A known optimizer, which prose calls `label`.

    `update` is its update as text over the paper's operands, and `lines` is the same as a program, whose last line is
    the update. Either is empty where that space cannot write it, or need not.
    """

    label: str
    update: str = ""
    lines: Lines = ()


RULES: dict[str, KnownRule] = {
    "sgd": KnownRule("SGD", "g", (("scale", "g", "2"),)),
    "momentum": KnownRule("Momentum", "m_hat", (("ema", "g", "0.9"),)),
    "rmsprop": KnownRule(
        "RMSProp", "rmsprop", (("square", "g"), ("ema_hat", "x1", "0.999"), ("sqrt", "x2"), ("div", "g", "x3"))
    ),
    "adam": KnownRule(
        "Adam",
        "adam",
        (
            ("ema_hat", "g", "0.9"),
            ("square", "g"),
            ("ema_hat", "x2", "0.999"),
            ("sqrt", "x3"),
            ("div", "x1", "x4"),
        ),
    ),
    "adamw": KnownRule(
        "AdamW",
        lines=(
            ("ema_hat", "g", "0.9"),
            ("square", "g"),
            ("ema_hat", "x2", "0.999"),
            ("sqrt", "x3"),
            ("div", "x1", "x4"),
            ("axpy", "x5", "w", "0.01"),
        ),
    ),
    "lion": KnownRule("Lion", lines=(("ema_old", "g", "0.99"), ("lerp", "x1", "g", "0.9"), ("sign", "x2"))),
    "nsgd": KnownRule("Normalised SGD", lines=(("norm", "g"), ("div", "g", "x1"))),
    "signsgd": KnownRule("SignSGD", "sign(g)"),
    "signum": KnownRule("Signum", "sign(m_hat)", (("ema", "g", "0.9"), ("sign", "x1"))),
    "powersign": KnownRule("PowerSign", "g * exp(sign(g) * sign(m_hat))"),
    "addsign": KnownRule(
        "AddSign",
        "g * (1 + sign(g) * sign(m_hat))",
        (("ema", "g", "0.9"), ("sign", "x1"), ("abs", "g"), ("mul", "x2", "x3"), ("add", "g", "x4")),
    ),
}

# The names for each use, in its order. Evolution begins with the last three lists, so their order is part of what a
# seed gives.
EVALUATED = ("sgd", "momentum", "rmsprop", "adam", "adamw", "lion", "powersign", "addsign")  # for evaluate --known
REPORTED = ("adam", "rmsprop", "sgd", "momentum", "adamw", "lion", "powersign", "addsign")  # for a report
OF_GROUPS = ("sgd", "momentum", "adam", "rmsprop", "signsgd", "signum", "powersign", "addsign")
OF_ELEMENTWISE = ("sgd", "momentum", "signum", "lion", "rmsprop", "adam", "addsign")
OF_PROGRAMS = (*OF_ELEMENTWISE, "adamw", "nsgd")
