"""Hypothesis strategies for rules: random expression graphs over every op of the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from nos_ext.ops import OPS
from nos_ext.rule import Expr, Rule, RuleError, apply, constant, hyper, state
from nos_ext.rule.expr import ELEMENT, GRAD, PARAM, STEP, TENSOR, TOTAL
from nos_ext.rule.table import REDUCTIONS

EDGES = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 3.0, 0.9, 1e-8, 1e-4, math.e, math.pi, math.inf, -math.inf)
NAMES = ("m", "v", "y", "s", "a", "b", "c", "d")
ELEMENTWISE = tuple(name for name in OPS if name not in REDUCTIONS)
HYPERS = {"beta": 0.9, "eps": 1e-8, "alpha": -1.5}


def constants() -> st.SearchStrategy[float]:
    """Numbers that may stand in a rule, special ones more often than not."""
    return st.one_of(st.sampled_from(EDGES), st.floats(allow_nan=False), st.floats(-2, 2))


@st.composite
def rules(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    *,
    max_ops: int = 40,
    max_states: int = 8,
    ops: tuple[str, ...] = ELEMENTWISE,
    total: bool = True,
    numbers: st.SearchStrategy[float] | None = None,
) -> Rule:
    """A rule of 1 to `max_ops` nodes over `ops`, with up to `max_states` states.

    Any node may be an operand of any later one, so graphs share values, have dead nodes, and outputs that are leaves or
    scalars. `total=False` leaves out T; `numbers` replaces the constants. With reductions among `ops` there are numbers
    per tensor, too, and states that are kept as such.
    """
    names = NAMES[: draw(st.integers(0, max_states))]
    hypers: dict[str, float | None] = {
        "lr": None,
        **{h: HYPERS[h] for h in draw(st.sets(st.sampled_from(list(HYPERS))))},
    }
    scalars: list[Expr] = [STEP, *([TOTAL] if total else []), *map(hyper, hypers)]
    values: list[Expr] = [GRAD, PARAM, *map(state, names)]
    unread: list[Expr] = []
    tensor_numbers: list[Expr] = []
    number = constants() if numbers is None else numbers

    # One number decides what an operand is: drawing is what takes the time here.
    choice = st.integers(0, 6 * 64 - 1)

    def scalar(index: int | None = None) -> Expr:
        index = draw(choice) // 6 if index is None else index
        if tensor_numbers and index % 3 == 0:
            return tensor_numbers[index // 3 % len(tensor_numbers)]
        return constant(draw(number)) if index % 2 else scalars[index // 2 % len(scalars)]

    def operand() -> Expr:
        # mostly values that nothing reads yet, so that little of the graph is dead
        index, kind = divmod(draw(choice), 6)
        if kind == 0:
            return scalar(index)
        return unread.pop(index % len(unread)) if kind > 2 and unread else values[index % len(values)]

    def keep(node: Expr) -> None:
        if node.scalar:
            scalars.append(node)
        elif node.level == TENSOR:
            tensor_numbers.append(node)
        else:
            values.append(node)
            unread.append(node)

    for _ in range(draw(st.integers(1, max_ops))):
        index, kind = divmod(draw(st.integers(0, 5 * len(ops) - 1)), 5)
        spec = OPS[ops[index]]
        if spec.domain == "scalar" or (spec.domain == "any" and kind == 0):
            keep(apply(spec.name, *[scalar() for _ in range(spec.arity)]))
        elif spec.name in REDUCTIONS:
            operands = [operand() for _ in range(spec.arity)]
            keep(apply(spec.name, *[x if x.level == ELEMENT else GRAD + x for x in operands]))
        elif spec.domain == "random":
            keep(apply(spec.name, *[operand() for _ in range(spec.arity - 1)], scalar()))
        else:
            keep(apply(spec.name, *[operand() for _ in range(spec.arity)]))
    last = [*scalars[-2:], *values, *tensor_numbers[-2:]]
    outputs = [unread.pop() if unread else last[-1 - draw(choice) % len(last)] for _ in ("p", *names)]
    if REDUCTIONS.isdisjoint(ops):
        return Rule("random_rule", names, hypers, outputs)
    outputs[1:] = [draw(st.sampled_from([x, *tensor_numbers])) for x in outputs[1:]]
    try:
        return Rule("random_rule", names, hypers, [PARAM + outputs[0], *outputs[1:]])
    except RuleError:  # an operand of a reduction turned out to be a number, as in norm(where(1, 2, g))
        reject()
