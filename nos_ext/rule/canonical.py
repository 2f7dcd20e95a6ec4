"""Owns the canonical key of a rule. Rules that algebra over the real numbers shows to be one function have one key.

The search uses it to train no rule twice. Commuted and regrouped sums and products, cancelled terms, scaled arguments
of sign, abs and clip, and the like give one key. States that p never depends on do not count, nor do the names of
states. Rules with different keys may still be the same function; rules with the same key always are, at almost every
point. Nothing of this touches a compiled program: the rewrites there keep every bit (simplify.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .algebra import Algebra
from .atoms import ZERO, Opaque, Value, constant, digest
from .definition import Definition
from .expr import TENSOR, Expr, postorder
from .matrix import NewtonSchulz
from .normal_forms import NORMAL_FORMS
from .program import MatrixProgram, Program, Rule
from .shorthand import HYPERS, OPERANDS
from .table import OPS, RANDOM


def canonical_key(rule: Rule | Program | MatrixProgram) -> str:
    """Returns the canonical key as a hex digest. It depends on nothing but the rule's formula and defaults."""
    if not isinstance(rule, Rule):
        rule = rule.rule
    slots = {name: f"state{i}" for i, name in enumerate(rule.state_names)}
    keys, supports = _keys(rule, ("p", *slots), slots)
    live = _live(dict(zip(("p", *slots), supports, strict=True)), slots)
    if len(live) == len(slots) <= 1:
        return digest(",".join(keys))
    # States are told apart by the keys of their updates, in which the other states stand with what is known of them.
    # Slots only break ties.
    colours = dict.fromkeys(slots, "state")
    for _ in live[1:]:
        keys, _ = _keys(rule, live, colours)
        colours |= {name: digest(f"{colours[name]}:{key}") for name, key in zip(live, keys, strict=True)}
        if len({colours[name] for name in live}) == len(live):
            break
    order = sorted(live, key=lambda name: colours[name])
    labels = {name: f"dead {name}" for name in slots} | {name: f"state{i}" for i, name in enumerate(order)}
    return digest(",".join(_keys(rule, ("p", *order), labels)[0]))


def _live(supports: dict[str, set[str]], slots: dict[str, str]) -> list[str]:
    """Lists the states that the parameter depends on, now or later, in slot order."""
    live: set[str] = set()
    todo = ["p"]
    while todo:
        support = supports[todo.pop()]
        found = {name for name in slots if slots[name] in support} - live
        live |= found
        todo += found
    return [name for name in slots if name in live]


def _keys(rule: Definition, outputs: Sequence[str], states: dict[str, str]) -> tuple[list[str], list[set[str]]]:
    """Returns the keys of the named outputs and the state symbols in each. `states` has the symbol of every state."""
    roots = dict(zip(("p", *rule.state_names), rule.simplified, strict=True))
    builder = _Builder(rule.hyperparameters, states)
    values: dict[Expr, Value] = {}
    for node in postorder([roots[name] for name in outputs]):
        values[node] = builder.value(node, [values[x] for x in node.args])
    results = [values[roots[name]] for name in outputs]
    return [x.key for x in results], [builder.symbols(x) for x in results]


class Pieces:
    """Pieces builds canonical values of updates over the paper's operands, piece by piece.

    It serves a search, which sees the same pieces in very many rules. Values never change, equal keys mean equal
    values, and a value may be put into the holes of any later graph of the same object.
    """

    def __init__(self) -> None:
        self._states = {name: f"state {name}" for name, spec in OPERANDS.items() if spec.is_state}
        self._hypers: dict[str, float | None] = {"lr": None, **HYPERS}
        self._builder = _Builder(self._hypers, self._states)

    def value(
        self, order: Sequence[Expr], holes: Mapping[Expr, Value] = MappingProxyType({}), *, draw: int = 1
    ) -> Value:
        """Returns the value of a graph.

        Args:
            order: the nodes of the graph in postorder.
            holes: the values of nodes that are not computed.
            draw: the number of the first draw. Draws are equal when their number, kind and arguments are.
        """
        values = dict(holes)
        builder = self._builder
        builder.restart(draw)
        for node in order:
            if node not in values:
                values[node] = builder.value(node, [values[x] for x in node.args])
        return values[order[-1]]

    @property
    def atoms(self) -> int:
        """This counts the different factors that have been seen. The memory of this object grows with them."""
        return self._builder.atoms


class _Builder:
    """A _Builder computes the values of nodes."""

    def __init__(self, hypers: Mapping[str, float | None], states: dict[str, str]) -> None:
        self._algebra = Algebra()
        self._hypers = hypers
        self._states = states
        self._draws: dict[str, int] = {}
        self.drawn = 0  # number of draws of each kind that come before

    @property
    def atoms(self) -> int:
        return len(self._algebra.atoms)

    def restart(self, draw: int) -> None:
        """Numbers draws from `draw` again."""
        self._draws.clear()
        self.drawn = draw - 1

    def value(self, node: Expr, args: list[Value]) -> Value:
        if not node.args:
            return self._leaf(node)
        if isinstance(node.value, NewtonSchulz):
            return self._algebra.atom(f"{node.op}{node.value.arguments()}", args, maybe_nan=True, level=2)
        return self._draw(node.op, args) if node.op in RANDOM else self._apply(node.op, args)

    def _apply(self, op: str, args: list[Value]) -> Value:
        try:
            return NORMAL_FORMS[op](self._algebra, *args)
        except (Opaque, OverflowError):
            ordered = sorted(args, key=lambda x: x.key) if OPS[op].commutes else args
            level = {"reduce": 1, "global": 0}.get(OPS[op].domain)
            return self._algebra.atom(op, ordered, maybe_nan=True, level=level)

    def symbols(self, value: Value) -> set[str]:
        """Returns the kinds of those atoms in a value that have no operands."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [value]
        while todo:
            for key in [key for mono, _ in todo.pop().terms for key, _ in mono]:
                if key not in seen:
                    seen.add(key)
                    atom = self._algebra.atoms[key]
                    todo += atom.args
                    if not atom.args:
                        found.add(atom.kind)
        return found

    def _leaf(self, node: Expr) -> Value:
        symbol = self._algebra.symbol
        if node.op == "constant":
            value = float(node.value)  # type: ignore[arg-type]
            return (
                constant(value) if math.isfinite(value) else self._algebra.atom(f"constant {value}", (), maybe_nan=True)
            )
        if node.op == "state":
            level = 1 if node.level == TENSOR else 2
            return symbol(self._states[str(node.value)], nonzero=False, level=level)  # states are 0 at the start
        if node.op == "hyper":
            return symbol(f"hyper {node.value}={self._hypers[str(node.value)]}", level=0)
        one = node.op in ("step", "total")
        return symbol(node.op, nonneg=one, level=0 if one else 2)

    def _draw(self, op: str, args: list[Value]) -> Value:
        """Makes draws symbols, numbered among those of their kind. Gaussians and drops scale with their operand."""
        algebra = self._algebra
        if op == "normal":
            return self._apply("mul", [args[0], algebra.symbol(self._number("normal"))])
        if op != "drop":
            raise LookupError(f"random op {op} has no normal form; give it one here")
        x, prob = args
        if prob.constant is not None and (prob.constant <= 0 or prob.constant > 1):
            return x if prob.constant <= 0 else ZERO
        try:
            c, mono = algebra.factor(x)
            if c == 0:
                return ZERO
            inner = algebra.product(1.0, mono)
            return algebra.scale(algebra.atom(self._number(f"drop {inner.key} {prob.key}"), (inner, prob), level=2), c)
        except (Opaque, OverflowError):
            return algebra.atom(self._number(f"drop {x.key} {prob.key}"), (x, prob), maybe_nan=True, level=2)

    def _number(self, kind: str) -> str:
        count = self._draws[kind] = self._draws.get(kind, self.drawn) + 1
        return f"{kind} #{count}"
