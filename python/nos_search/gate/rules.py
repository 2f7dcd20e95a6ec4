"""Owns the gates for rules that come from anywhere but a space: text of a user, or what is made of it."""

from __future__ import annotations

from collections.abc import Sequence

from nos_ext import RuleError

from ..rules import CompiledRule
from . import engine, probe
from .judge import SEED
from .verdict import Gates


def faults(rules: Sequence[CompiledRule]) -> list[str]:
    """Says of each rule why it cannot train a child, by its values on the probes alone; "" if it may. These are the
    gates effect and descent; nothing is trained, on surfaces neither."""
    reasons = [_too_long(rule) for rule in rules]
    fit = [rule for rule, reason in zip(rules, reasons, strict=True) if not reason]
    seen = iter(_seen(fit) if fit else ())
    return [reason or next(seen) for reason in reasons]


def _too_long(rule: CompiledRule) -> str:
    """Says why a rule is too long for the probes; "" if it is not."""
    try:
        engine.with_update_as_param(rule.program.rule)
    except RuleError as error:
        return f"too long to try: {error}"
    return ""


def _seen(rules: Sequence[CompiledRule]) -> list[str]:
    """Says of each rule what its values on the probes show against it."""
    graphs = [rule.program.rule for rule in rules]
    first, second = probe.halves(engine.updates(graphs, probe.effect_stimulus(), seed=SEED))
    cosines = probe.descent_cosines(engine.updates(graphs, probe.descent_stimulus(), seed=SEED))
    least = Gates().descent
    return [
        "gradient has no effect"
        if not acts
        else "not finite"
        if not finite
        else "does not descend"
        if least is not None and cosine < least
        else ""
        for acts, finite, cosine in zip(probe.has_effect(first, second), probe.is_finite(first), cosines, strict=True)
    ]
