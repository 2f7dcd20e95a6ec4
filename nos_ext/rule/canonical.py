"""Owns the canonical key of a rule. Rules that algebra over the real numbers shows to be one function have one key.

The search uses it to train no rule twice. Commuted and regrouped sums and products, cancelled terms, scaled arguments
of sign, abs and clip, and the like give one key. States that p never depends on do not count, nor do the names of
states. Rules with different keys may still be the same function; rules with the same key always are, at almost every
point. Nothing of this touches a compiled program: the rewrites there keep every bit (simplify.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from .algebra import Algebra
from .atoms import ONE, ZERO, Opaque, Value, constant, digest
from .definition import Definition
from .expr import TENSOR, Expr, postorder
from .matrix import NewtonSchulz
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
            return _OPS[op](self._algebra, *args)
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


def _compare(kind: str, test: Callable[[float], bool], flip: bool) -> Callable[[Algebra, Value, Value], Value]:
    """Makes a < b and its like a test of the sign of b - a."""

    def compare(algebra: Algebra, a: Value, b: Value) -> Value:
        difference = algebra.sub(a, b) if flip else algebra.sub(b, a)
        c, mono = algebra.factor(difference)
        if not mono:
            return ONE if test(c) else ZERO
        sign = math.copysign(1.0, c) if kind in ("positive", "not negative") else 1.0
        return algebra.atom(kind, (algebra.product(sign, mono),), nonneg=True)

    return compare


def _maximum(algebra: Algebra, a: Value, b: Value) -> Value:
    operands: dict[str, Value] = {}
    largest = -math.inf
    for x in (a, b):
        atom = algebra.atoms.get(x.terms[0][0][0][0]) if len(x.terms) == 1 and x.terms[0][0] else None
        whole = atom is not None and atom.kind == "max" and x.terms == ((((atom.key, 1.0),), 1.0),)
        for operand in atom.args if atom is not None and whole else (x,):
            if operand.constant is None:
                operands[operand.key] = operand
            else:
                largest = max(largest, operand.constant)
    if not operands:
        return constant(largest)
    if largest > -math.inf:
        operands["number"] = constant(largest)
    if len(operands) == 1:
        return next(iter(operands.values()))
    ordered = sorted(operands.values(), key=lambda x: x.key)
    return algebra.atom("max", ordered, nonneg=largest >= 0)


def _minimum(algebra: Algebra, a: Value, b: Value) -> Value:
    return algebra.scale(_maximum(algebra, algebra.scale(a, -1.0), algebra.scale(b, -1.0)), -1.0)


def _clip(algebra: Algebra, x: Value, low: Value, high: Value) -> Value:
    lo, hi = low.constant, high.constant
    if lo is None or hi is None:
        return _minimum(algebra, _maximum(algebra, x, low), high)
    if lo >= hi:
        algebra.discard(x)
        return constant(hi)
    c, mono = algebra.factor(x)
    if not mono:
        return constant(min(max(c, lo), hi))
    # clip(c y, lo, hi) = c clip(y, lo / c, hi / c)
    lo, hi = (lo / c, hi / c) if c > 0 else (hi / c, lo / c)
    inner = algebra.product(1.0, mono)
    if algebra.only_signs(inner):
        if lo <= -1 and hi >= 1:
            return x
        if lo == -hi:
            return algebra.scale(inner, c * hi)
    kind = "clip" if lo < 0 < hi else "cut"
    return algebra.scale(algebra.atom(kind, (inner, constant(lo), constant(hi)), nonneg=lo >= 0), c)


def _where(algebra: Algebra, condition: Value, a: Value, b: Value) -> Value:
    c, mono = algebra.factor(condition)
    if not mono:
        return a if c != 0 else b
    if a.key == b.key:
        return a
    test = algebra.product(1.0, mono)
    if len(mono) == 1:
        atom = algebra.atoms[mono[0][0]]
        if atom.kind in ("zero", "not zero") and mono[0][1] == 1:
            test = atom.args[0]
            if atom.kind == "zero":
                a, b = b, a
    scale = algebra.factor(a)[0] or algebra.factor(b)[0]
    inner = algebra.atom("where", (test, algebra.scale(a, 1 / scale), algebra.scale(b, 1 / scale)))
    return algebra.scale(inner, scale)


def _odd(function: Callable[[float], float], kind: str) -> Callable[[Algebra, Value], Value]:
    def odd(algebra: Algebra, a: Value) -> Value:
        c, mono = algebra.factor(a)
        if not mono:
            return constant(function(c))
        sign = math.copysign(1.0, c)
        return algebra.scale(algebra.atom(kind, (algebra.scale(a, sign),)), sign)

    return odd


def _cos(algebra: Algebra, a: Value) -> Value:
    c, mono = algebra.factor(a)
    return algebra.atom("cos", (algebra.scale(a, math.copysign(1.0, c)),)) if mono else constant(math.cos(c))


def _floor(algebra: Algebra, a: Value) -> Value:
    return algebra.atom("floor", (a,)) if a.constant is None else constant(math.floor(a.constant))


def _pow(algebra: Algebra, a: Value, b: Value) -> Value:
    if b.constant is not None:
        return algebra.power(a, b.constant)
    if a.constant is not None and a.constant > 0:
        return algebra.exp(algebra.scale(b, math.log(a.constant)))
    raise Opaque


def _sum(over_all: bool) -> Callable[[Algebra, Value], Value]:
    return lambda algebra, a: algebra.total(a, over_all)


def _dot(over_all: bool) -> Callable[[Algebra, Value, Value], Value]:
    return lambda algebra, a, b: algebra.total(algebra.mul(a, b), over_all)


def _norm(over_all: bool) -> Callable[[Algebra, Value], Value]:
    return lambda algebra, a: algebra.power(algebra.total(algebra.power(a, 2.0), over_all), 0.5)


def _mean(algebra: Algebra, a: Value) -> Value:
    return algebra.div(algebra.total(a, False), algebra.total(ONE, False))  # the total of 1 is the number of elements


def _rms(algebra: Algebra, a: Value) -> Value:
    return algebra.power(_mean(algebra, algebra.power(a, 2.0)), 0.5)


def _closed(algebra: Algebra, *args: Value) -> Value:
    raise Opaque


_OPS: Final[dict[str, Callable[..., Value]]] = {
    **dict.fromkeys(OPS, _closed),
    "add": Algebra.add,
    "sub": Algebra.sub,
    "mul": Algebra.mul,
    "div": Algebra.div,
    "pow": _pow,
    "min": _minimum,
    "max": _maximum,
    "lt": _compare("positive", lambda d: d > 0, False),
    "le": _compare("not negative", lambda d: d >= 0, False),
    "gt": _compare("positive", lambda d: d > 0, True),
    "ge": _compare("not negative", lambda d: d >= 0, True),
    "eq": _compare("zero", lambda d: d == 0, False),
    "ne": _compare("not zero", lambda d: d != 0, False),
    "neg": lambda algebra, a: algebra.scale(a, -1.0),
    "abs": Algebra.abs,
    "sign": Algebra.sign,
    "exp": Algebra.exp,
    "log": Algebra.log,
    "sqrt": lambda algebra, a: algebra.power(a, 0.5),
    "rsqrt": lambda algebra, a: algebra.power(a, -0.5),
    "square": lambda algebra, a: algebra.power(a, 2.0),
    "tanh": _odd(math.tanh, "tanh"),
    "floor": _floor,
    "fma": lambda algebra, a, b, c: algebra.add(algebra.mul(a, b), c),
    "where": _where,
    "clip": _clip,
    "cos": _cos,
    "sin": _odd(math.sin, "sin"),
    "sum": _sum(False),
    "mean": _mean,
    "norm": _norm(False),
    "rms": _rms,
    "max_abs": Algebra.max_abs,
    "dot": _dot(False),
    "global_sum": _sum(True),
    "global_norm": _norm(True),
    "global_dot": _dot(True),
}
