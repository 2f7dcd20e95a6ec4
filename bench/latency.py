"""How long a new rule takes until it runs: text to Program, and text to the first update of a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import nos_ext

from .case import Arena, Contender
from .harness import Effort, measure, summary
from .rules import LR, RULES, BenchRule
from .sizes import SIZES

RULE_NAMES: Final = ("powersign", "random40")
TO_PROGRAM: Final = "text -> Program"


def fresh_texts(rule: BenchRule) -> Iterator[str]:
    """The text of the rule with another default of a hyperparameter each time, so that no cache knows it."""
    name, value = next(iter(rule.hyper.items()))
    old = f"{name}={value:g}"
    assert old in rule.text
    for i in itertools.count(1):
        yield rule.text.replace(old, f"{name}={value - i * 1e-9!r}")


def _contenders(rule: BenchRule, arena: Arena) -> list[Contender]:
    texts = fresh_texts(rule)
    case = arena.case(rule)
    raw = nos_ext.compile_rule(rule.text).bytecode

    def first_update() -> None:
        program = nos_ext.compile_rule(next(texts))
        nos_ext.apply_rule(program, case.params, case.grads, nos_ext.init_state(program, case.params), lr=LR)

    def contender(name: str, step: Callable[[], object]) -> Contender:
        def run(n: int) -> None:
            for _ in range(n):
                step()

        return Contender(name, run, peer=False)

    return [
        contender(TO_PROGRAM, lambda: nos_ext.compile_rule(next(texts))),
        contender("bytecode -> Program", lambda: nos_ext.Program.from_bytes(raw)),
        contender("text -> first update", first_update),
    ]


def run(effort: Effort) -> Iterator[dict[str, Any]]:
    arena = Arena(SIZES["convnet"])
    for name in RULE_NAMES:
        outcome = measure(_contenders(RULES[name], arena), effort, always=(TO_PROGRAM,))
        yield {"rule": name, "operations": len(nos_ext.compile_rule(RULES[name].text))} | summary(outcome, TO_PROGRAM)
