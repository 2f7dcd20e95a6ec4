"""The engine itself: nos_ext.apply_rule, and the torch.optim.Optimizer around it."""

from __future__ import annotations

import functools

import nos_ext

from ..case import Case, Contender, Unavailable, repeated
from ..rules import LR, TOTAL_STEPS

ENGINE = "nos_ext"


@functools.cache
def program(text: str) -> nos_ext.Program:
    return nos_ext.compile_rule(text)


def build(case: Case) -> Contender:
    compiled = program(case.rule.text)
    params, grads, state, t = case.params, case.grads, case.state, case.step
    apply_rule = nos_ext.apply_rule

    def run(n: int) -> None:
        for _ in range(n):
            apply_rule(compiled, params, grads, state, lr=LR, step=t, total_steps=TOTAL_STEPS)

    return Contender(ENGINE, run, peer=False)


def optimizer(case: Case) -> Contender:
    """nos_ext.optim.RuleOptimizer, as users call it: with state of its own."""
    try:
        from nos_ext.optim import RuleOptimizer
    except ImportError as error:
        raise Unavailable("nos_ext.optim.RuleOptimizer is not in this version") from error
    out = RuleOptimizer(case.params, program(case.rule.text), LR, total_steps=TOTAL_STEPS)
    return Contender("RuleOptimizer", repeated(out.step), peer=False)
