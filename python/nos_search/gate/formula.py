"""Owns the texts of tokens as functions of NumPy arrays, and as expression graphs with holes.

Both come from the text of the vocabulary and the op table of nos_ext, so a new row of a vocabulary needs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from nos_ext import Expr, Rule
from nos_ext.rule import as_rule
from nos_ext.rule.expr import PARAM, postorder, rebuilt
from nos_ext.rule.table import RANDOM, numpy_function

from ..space import Space
from ..space.group import Array


class Formula:
    """A formula is a template such as "log(abs({0}))" with `arity` holes."""

    def __init__(self, template: str, arity: int) -> None:
        names = [f"x{k}" for k in range(arity)]
        text = template.format(*names)
        rule = as_rule(f"def f(p, g, {', '.join(names)}, *, lr): return {text}, {', '.join(names)}")
        self.root: Expr = rule.outputs[0]
        self.order = postorder([self.root])
        self._holes = {node: int(str(node.value)[1:]) for node in self.order if node.op == "state"}
        self.random = any(node.op in RANDOM for node in self.order)
        where: dict[Expr, int] = {}  # node -> register; the holes come first
        self._constants: list[tuple[int, float]] = []
        self._steps: list[tuple[Callable[..., Any], int, tuple[int, ...], bool]] = []
        registers = arity
        for node in self.order:
            if node in self._holes:
                where[node] = self._holes[node]
                continue
            where[node] = registers
            if not node.args:
                self._constants.append((registers, float(node.value)))  # type: ignore[arg-type]
            else:
                args = tuple(where[x] for x in node.args)
                self._steps.append((numpy_function(node.op), registers, args, node.op in RANDOM))
            registers += 1
        self._registers, self._result = registers, where[self.root]
        self._arity = arity

    def __call__(self, *arrays: Array, uniform: Array | None = None) -> Array:
        """Returns the value; arrays of one dtype keep it. A template that draws takes its numbers in [0, 1) from
        `uniform`."""
        values: list[Any] = [*arrays, *[None] * (self._registers - self._arity)]
        for register, number in self._constants:
            values[register] = number
        for function, register, args, draws in self._steps:
            operands = [values[k] for k in args]
            values[register] = function(*operands, _uniform=uniform) if draws else function(*operands)
        result: Array = values[self._result]
        return result

    def graph(self, *operands: Expr) -> Expr:
        """Returns a new graph with the operands in the holes. A template that draws makes a draw of its own each
        time."""
        new: dict[Expr, Expr] = {}
        for node in self.order:
            if node in self._holes:
                new[node] = operands[self._holes[node]]
            elif node.args:
                new[node] = rebuilt(node.op, tuple([new[x] for x in node.args]))
            else:
                new[node] = node
        return new[self.root]


def functions(space: Space) -> tuple[list[Formula], list[Formula]]:
    """Returns the unary and the binary functions of a space."""
    return (
        [_function(space.token_text(token), 1) for token in space.unary],
        [_function(space.token_text(token), 2) for token in space.binary],
    )


_function = cache(Formula)  # the gates of a run share them


@cache
def update_of(text: str) -> Expr:
    """Returns the graph of an update that is one expression over the paper's operands, such as `m_hat` or `0.1 * w`."""
    difference = as_rule(text).outputs[0]  # p - lr * u
    return difference.args[1].args[1]


def operand_values(text: str, params: Sequence[Array], grads: Sequence[Array], *, total_steps: int) -> list[Array]:
    """Returns the float64 values of an operand at steps 1, 2, ... with the given parameter and gradient at each step.

    Draws of noise are those of seed 0.
    """
    rule = as_rule(text)
    # The update becomes a state. As the difference of two parameters it would lose what is small beside them.
    probe = Rule(
        "operand", ["update", *rule.state_names], rule.hyperparameters, [PARAM, update_of(text), *rule.outputs[1:]]
    )
    state: dict[str, Any] = {name: [np.zeros_like(params[0], dtype=np.float64)] for name in probe.state_names}
    values = []
    for step, (p, g) in enumerate(zip(params, grads, strict=True), 1):
        _, state = probe.reference(
            [p.astype(np.float64)], [g.astype(np.float64)], state, lr=1.0, step=step, total_steps=total_steps
        )
        values.append(state["update"][0])
    return values
