"""Owns the decision which states are one number per tensor, and the checks that depend on it.

A state is kept as one number per tensor when its new value is one: `k` is in ``k = 0.9 * k + 0.1 * norm(g)``. A state
whose new value no reduction has a part in has the shape of its parameter, as in ``m = 0.9 * m``. As what a state is
depends on what other states are, all of them are taken for numbers per tensor first, and those that cannot be are
given up one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from .errors import RuleError
from .expr import ELEMENT, TENSOR, Expr, Level, level_of
from .table import MATRIX, OPS, RANDOM, REDUCTIONS

_CHECKED: Final = frozenset(spec.name for spec in OPS.values() if spec.domain != "any").union(MATRIX)


class LevelError(RuleError):
    """Raised for a node, or for an output, whose level does not fit. `node` says which."""

    def __init__(self, message: str, node: Expr) -> None:
        super().__init__(message)
        self.node = node


def per_tensor_states(outputs: Sequence[Expr], order: Sequence[Expr], state_names: Sequence[str]) -> frozenset[str]:
    """Finds the states that are one number per tensor. `order` is the postorder of the outputs, p first."""
    new = dict(zip(state_names, outputs[1:], strict=True))
    kept = frozenset(_fed(order, new))
    while True:
        levels = _levels(order, kept)
        still = frozenset([name for name in kept if levels[new[name]] < ELEMENT])
        if still == kept:
            return kept
        kept = still


def check_levels(outputs: Sequence[Expr], order: Sequence[Expr], per_tensor: Collection[str]) -> None:
    """Raises LevelError unless every op takes its operands, now that the levels of the states are known."""
    checked = [node for node in order if node.op in _CHECKED]
    if not checked:
        return
    levels = _levels(order, per_tensor)
    for node in checked:
        try:
            level_of(OPS.get(node.op) or MATRIX[node.op], [levels[x] for x in node.args])
        except RuleError as error:
            message = error.message
            numbers = [x.value for x in node.args if x.op == "state" and levels[x] == TENSOR]
            if (node.op in REDUCTIONS or node.op in MATRIX) and numbers:
                state = f"state '{numbers[0]}' is one number per tensor, as its new value is"
                message = f"{node.op} takes a tensor, but {state}"
            raise LevelError(message, node) from None
    if levels[outputs[0]] == TENSOR:
        raise LevelError(
            "the new p is one number for the whole tensor; make it of p or g, as in p - lr * g / norm(g)", outputs[0]
        )


def _levels(order: Sequence[Expr], per_tensor: Collection[str]) -> dict[Expr, Level]:
    """Computes the levels of all nodes of a postorder list."""
    levels: dict[Expr, Level] = {}
    for node in order:
        if node.op == "state":
            levels[node] = TENSOR if node.value in per_tensor else ELEMENT
        elif not node.args:
            levels[node] = node.level
        elif node.op in REDUCTIONS:
            levels[node] = TENSOR
        else:
            levels[node] = ELEMENT if node.op in RANDOM or node.op in MATRIX else max([levels[x] for x in node.args])
    return levels


def _fed(order: Sequence[Expr], new: Mapping[str, Expr]) -> set[str]:
    """Lists the states whose new value depends on a reduction, be it through other states and over several steps."""
    fed: set[str] = set()
    while True:
        reached: set[Expr] = set()
        for node in order:
            if node.op in REDUCTIONS or (node.op == "state" and node.value in fed) or not reached.isdisjoint(node.args):
                reached.add(node)
        found = {name for name, value in new.items() if value in reached}
        if found == fed:
            return fed
        fed = found
