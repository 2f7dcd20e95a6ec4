"""Owns the rewrites of a graph that keep every result bit, and the merging of equal nodes.

A rewrite is here only if it is exact in IEEE 754 arithmetic of any precision, for NaN (payload and sign of a NaN
aside), infinities, signed zeros and subnormals. So `x + 0` stays (it turns -0 into 0), `x * 0` stays (NaN), and sums
are never re-associated. Rewrites that only hold over the real numbers are in canonical.py. A `where` that is known to
give a scalar, or one number per tensor, becomes that: what follows from it alone is then computed in double.

Folding a constant needs a result that is the same on every machine: the ops whose result IEEE 754 fixes are folded;
exp, log, pow and their like are left to the scalar code, which computes them once per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import zip_longest
from typing import Final

from .expr import ELEMENT, SCALAR, TENSOR, Expr, draws, postorder, rebuilt, use_counts
from .table import MATRIX, OPS, RANDOM, numpy_function

_EXACT: Final = frozenset(
    ("add", "sub", "mul", "div", "min", "max", "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "sign", "sqrt")
).union(("rsqrt", "square", "floor", "where", "clip"))
_SIGN_OF_ZERO_OPEN: Final = frozenset(("min", "max", "clip"))  # implementations differ in the sign of min(-0, 0)


def fold(op: str, args: Sequence[Expr]) -> float | None:
    """Computes the number `op(*args)`.

    None means that there is none: an operand is no constant, or the result is NaN or depends on the machine.
    """
    if op not in _EXACT:
        return None
    for x in args:
        if x.op != "constant":
            return None
    import numpy as np

    with np.errstate(all="ignore"):
        result = float(numpy_function(op)(*[np.float64(x.value) for x in args]))  # type: ignore[arg-type]
    if math.isnan(result) or (result == 0 and op in _SIGN_OF_ZERO_OPEN):
        return None
    return result


class Simplifier:
    """A Simplifier builds nodes that are simple and unique: equal nodes are the same object.

    The states of `per_tensor` are one number per tensor, all others one per element. No rewrite depends on that.
    """

    def __init__(self, per_tensor: Collection[str] = ()) -> None:
        self._nodes: dict[object, Expr] = {}
        self._per_tensor = per_tensor

    def constant(self, value: float) -> Expr:
        key = (value, math.copysign(1.0, value))  # tells 0.0 from -0.0, which are equal
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Expr("constant", (), value, SCALAR)
        return node

    def leaf(self, node: Expr) -> Expr:
        if node.op == "constant":
            return self.constant(node.value)  # type: ignore[arg-type]
        key = (node.op, node.value)
        known = self._nodes.get(key)
        if known is None:
            if node.op == "state":
                node = Expr("state", (), node.value, TENSOR if node.value in self._per_tensor else ELEMENT)
            known = self._nodes[key] = node
        return known

    def make(self, op: str, args: tuple[Expr, ...]) -> Expr:
        """Builds the simplest node that equals `op(*args)`. The operands come from this object."""
        number = fold(op, args) if args[0].op == "constant" else None
        if number is not None:
            return self.constant(number)
        rewrite = _REWRITES.get(op)
        if rewrite is not None:
            node = rewrite(self, *args)
            if node is not None:
                return node
        key: object = (op, *args)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = rebuilt(op, args)
            if OPS[op].commutes:
                self._nodes[op, args[1], args[0]] = node
        return node

    def matrix(self, node: Expr, args: tuple[Expr, ...]) -> Expr:
        """Builds the node of a matrix product, with the options of `node`."""
        key = (node.op, node.value, *args)
        known = self._nodes.get(key)
        if known is None:
            known = self._nodes[key] = Expr(node.op, args, node.value, ELEMENT)
        return known

    def draw(self, node: Expr, args: tuple[Expr, ...]) -> Expr:
        """Builds a new random node, for each one of the source stays a draw of its own."""
        if node.op == "drop" and args[1].op == "constant" and args[1].value == 0:
            return args[0]  # it drops nothing, as no uniform number is below 0
        return rebuilt(node.op, args)


def simplify(
    outputs: Sequence[Expr], order: Sequence[Expr] | None = None, per_tensor: Collection[str] = ()
) -> tuple[Expr, ...]:
    """Rebuilds the outputs without needless or repeated nodes, and with every level decided.

    `order` is their postorder, where that is known. The states of `per_tensor` are one number per tensor.
    """
    build = Simplifier(per_tensor)
    new: dict[Expr, Expr] = {}
    for node in postorder(outputs) if order is None else order:
        if not node.args:
            new[node] = build.leaf(node)
            continue
        args = tuple([new[x] for x in node.args])
        if node.op in MATRIX:
            new[node] = build.matrix(node, args)
        else:
            new[node] = build.draw(node, args) if node.op in RANDOM else build.make(node.op, args)
    return tuple([new[x] for x in outputs])


def _is(x: Expr, value: float) -> bool:
    """Tells whether x is this number, the sign of zero included."""
    return x.op == "constant" and x.value == value and math.copysign(1.0, x.value) == math.copysign(1.0, value)


def _negative(x: Expr) -> bool:
    return x.op == "constant" and x.value < 0  # type: ignore[operator]


def _add(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if _is(b, -0.0):
        return a
    if _is(a, -0.0):
        return b
    if b.op == "neg":
        return build.make("sub", (a, b.args[0]))
    if a.op == "neg":
        return build.make("sub", (b, a.args[0]))
    if _negative(b):
        return build.make("sub", (a, build.constant(-b.value)))  # type: ignore[operator]
    if _negative(a):
        return build.make("sub", (b, build.constant(-a.value)))  # type: ignore[operator]
    return None


def _sub(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if _is(b, 0.0):
        return a
    if b.op == "neg":
        return build.make("add", (a, b.args[0]))
    if _negative(b):
        return build.make("add", (a, build.constant(-b.value)))  # type: ignore[operator]
    return None


def _mul(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if _is(b, 1.0):
        return a
    if _is(a, 1.0):
        return b
    if _is(b, -1.0):
        return build.make("neg", (a,))
    if _is(a, -1.0):
        return build.make("neg", (b,))
    if a.op == "neg" and b.op == "neg":
        return build.make("mul", (a.args[0], b.args[0]))
    return None


def _div(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if _is(b, 1.0):
        return a
    if _is(b, -1.0):
        return build.make("neg", (a,))
    if a.op == "neg" and b.op == "neg":
        return build.make("div", (a.args[0], b.args[0]))
    if b.op == "constant":
        fraction, exponent = math.frexp(b.value)  # type: ignore[arg-type]
        # For a power of two whose reciprocal is a normal number in every compute type, the product rounds as the
        # quotient does.
        if fraction in (0.5, -0.5) and -100 <= exponent <= 100:
            return build.make("mul", (a, build.constant(1 / b.value)))  # type: ignore[operator]
    return None


def _neg(build: Simplifier, a: Expr) -> Expr | None:
    return a.args[0] if a.op == "neg" else None


def _abs(build: Simplifier, a: Expr) -> Expr | None:
    if a.op in ("abs", "square", "exp"):
        return a
    return build.make("abs", a.args) if a.op == "neg" else None


def _square(build: Simplifier, a: Expr) -> Expr | None:
    return build.make("square", a.args) if a.op in ("neg", "abs") else None


def _floor(build: Simplifier, a: Expr) -> Expr | None:
    return a if a.op in ("sign", "floor") else None


def _sign(build: Simplifier, a: Expr) -> Expr | None:
    return a if a.op == "sign" else None


def _min(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if a is b or _is(b, math.inf):
        return a
    return b if _is(a, math.inf) else None


def _max(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
    if a is b or _is(b, -math.inf):
        return a
    return b if _is(a, -math.inf) else None


def _clip(build: Simplifier, a: Expr, low: Expr, high: Expr) -> Expr | None:
    return a if _is(low, -math.inf) and _is(high, math.inf) else None


def _flipped(op: str) -> Callable[[Simplifier, Expr, Expr], Expr | None]:
    """Writes `1 < x` as `x > 1`, which is what Python makes of the text."""

    def flip(build: Simplifier, a: Expr, b: Expr) -> Expr | None:
        return build.make(op, (b, a)) if a.op == "constant" and b.op != "constant" else None

    return flip


def _where(build: Simplifier, condition: Expr, a: Expr, b: Expr) -> Expr | None:
    if condition.op == "constant":
        value: float = condition.value  # type: ignore[assignment]
        if value == 0:
            return b
        # Beside per-element operands the number is rounded to the compute type, in which a smaller one is 0.
        if not abs(value) <= 2.0**-150 or (a.scalar and b.scalar):
            return a
    return a if a is b else None


_REWRITES: Final[dict[str, Callable[..., Expr | None]]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "lt": _flipped("gt"),
    "le": _flipped("ge"),
    "gt": _flipped("lt"),
    "ge": _flipped("le"),
    "eq": _flipped("eq"),
    "ne": _flipped("ne"),
    "neg": _neg,
    "abs": _abs,
    "square": _square,
    "sign": _sign,
    "floor": _floor,
    "min": _min,
    "max": _max,
    "clip": _clip,
    "where": _where,
}


def contract(outputs: Sequence[Expr]) -> tuple[Expr, ...]:
    """Turns per-element products that are used once, by a sum or a difference, into `fma`.

    What is one number per step or tensor is left alone: it costs nothing, and is computed in double.
    There is one rounding then instead of two. The bits change, so this is only done on request. A difference needs a
    negated product, which is free where a factor is a scalar; other differences stay. Draws are numbered by their
    order, and so where two of them would change places all stays.
    """
    contraction = _Contraction(outputs)
    new = contraction.run()
    return new if contraction.keeps_draws(new) else tuple(outputs)


class _Contraction:
    """A _Contraction is one run of `contract`, with what it has rebuilt so far."""

    def __init__(self, outputs: Sequence[Expr]) -> None:
        self._outputs = outputs
        self._order = postorder(outputs)
        self._uses = use_counts(self._order, outputs)
        self._build = Simplifier({str(x.value) for x in self._order if x.op == "state" and x.level == TENSOR})
        self._new: dict[Expr, Expr] = {}

    def run(self) -> tuple[Expr, ...]:
        new, build = self._new, self._build
        for node in self._order:
            if not node.args:
                new[node] = build.leaf(node)
                continue
            args = tuple([new[x] for x in node.args])
            if node.op in RANDOM:
                new[node] = build.draw(node, args)
                continue
            fused = self._fuse(node) if node.op in ("add", "sub") and node.level == ELEMENT else None
            new[node] = build.make(node.op, args) if fused is None else fused
        return tuple([new[x] for x in self._outputs])

    def keeps_draws(self, new: Sequence[Expr]) -> bool:
        """Tells whether the new outputs draw the same random numbers in the same order."""
        pairs = zip_longest(draws(self._outputs), draws(new))
        return all(draw is not None and self._new[draw] is other for draw, other in pairs)

    def _fuse(self, node: Expr) -> Expr | None:
        make, new = self._build.make, self._new
        a, b = node.args
        if self._product(a):
            if node.op == "add":
                return make("fma", (new[a.args[0]], new[a.args[1]], new[b]))
            if b.level < ELEMENT:
                return make("fma", (new[a.args[0]], new[a.args[1]], make("neg", (new[b],))))
        if self._product(b):
            if node.op == "add":
                return make("fma", (new[b.args[0]], new[b.args[1]], new[a]))
            for first, second in (b.args, b.args[::-1]):
                negated = self._negated(first)
                if negated is not None:
                    return make("fma", (negated, new[second], new[a]))
        return None

    def _product(self, source: Expr) -> bool:
        return source.op == "mul" and source.level == ELEMENT and self._uses[source] == 1

    def _negated(self, source: Expr) -> Expr | None:
        """Negates a value if that costs no per-element instruction; None if it does."""
        rest = []
        while self._product(source):
            source, other = source.args if source.args[1].level == ELEMENT else source.args[::-1]
            rest.append(self._new[other])
        if source.level == ELEMENT:
            return None
        node = self._build.make("neg", (self._new[source],))
        for other in reversed(rest):
            node = self._build.make("mul", (node, other))
        return node
