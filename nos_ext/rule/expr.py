"""Owns Expr, the node of an expression graph, with its leaves, and the walks over graphs.

A graph is a set of immutable nodes that point at their operands. A node means the same in every rule: `state("m")` is
"the state called m" of whichever rule the graph ends up in. Nodes are compared by identity; simplify.py merges equal
ones when a rule is compiled, so that the outcome never depends on what else a process has built. Every random node is
a draw of its own: used twice it is one draw, built twice it is two.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .._numbers import shown
from .errors import RuleError
from .printers.text import shortened_text
from .table import MATRIX, OPS, RANDOM, REDUCTIONS, OpSpec

if TYPE_CHECKING:
    from .matrix import NewtonSchulz

Number = int | float


class Level(IntEnum):
    """Level says how many values a node has: one per step, one per tensor and step, or one per element.

    What is computed from several values has the highest of their levels.
    """

    SCALAR = 0  # numbers, hyperparameters, t, T and what is made of them
    TENSOR = 1  # one number for each parameter tensor: norm(g), and what is made of such numbers
    OPEN = 2  # made of states: one number per tensor or per element, which a Definition decides from the new states
    ELEMENT = 3  # p, g and what is made of them


SCALAR, TENSOR, OPEN, ELEMENT = Level


class Expr:
    """An Expr is one node of an expression graph: an op with its operands, or a leaf. It never changes.

    Python's operators build new nodes. Even `==` does, so nodes are compared with `is`.

    Attributes:
        op: the name of an op, or the kind of a leaf: param, grad, state, hyper, step, total, constant, or operand,
            which only printers see.
        args: the operands; a leaf has none.
        value: the number of a constant, the name of a state, hyperparameter or operand, the options of an
            orthogonalize, and None for all else.
        level: how many values the node has. It is never OPEN in the graphs that a Definition has simplified.
    """

    __slots__ = ("args", "level", "op", "value")
    __array_ufunc__ = None  # NumPy scalars on the left leave the operation to Expr

    op: str
    args: tuple[Expr, ...]
    value: str | float | NewtonSchulz | None
    level: Level

    def __init__(self, op: str, args: tuple[Expr, ...], value: str | float | NewtonSchulz | None, level: Level) -> None:
        _set_op(self, op)
        _set_args(self, args)
        _set_value(self, value)
        _set_level(self, level)

    @property
    def scalar(self) -> bool:
        """Whether the node has one value per step: numbers, hyperparameters, t, T and what is made of them alone."""
        return self.level == SCALAR

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("an Expr cannot be changed; build a new one")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Expr, (self.op, self.args, self.value, self.level)

    def __copy__(self) -> Expr:
        return self  # as a node is what it is by its identity: two draws are not one

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __add__(self, other: Expr | Number) -> Expr:
        return apply("add", self, other)

    def __radd__(self, other: Number) -> Expr:
        return apply("add", other, self)

    def __sub__(self, other: Expr | Number) -> Expr:
        return apply("sub", self, other)

    def __rsub__(self, other: Number) -> Expr:
        return apply("sub", other, self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return apply("mul", self, other)

    def __rmul__(self, other: Number) -> Expr:
        return apply("mul", other, self)

    def __truediv__(self, other: Expr | Number) -> Expr:
        return apply("div", self, other)

    def __rtruediv__(self, other: Number) -> Expr:
        return apply("div", other, self)

    def __mod__(self, other: Expr | Number) -> Expr:
        return apply("mod", self, other)

    def __rmod__(self, other: Number) -> Expr:
        return apply("mod", other, self)

    def __pow__(self, other: Expr | Number) -> Expr:
        if not isinstance(other, Expr) and other == 2:
            return apply("square", self)
        return apply("pow", self, other)

    def __rpow__(self, other: Number) -> Expr:
        return apply("pow", other, self)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __pos__(self) -> Expr:
        return self

    def __abs__(self) -> Expr:
        return apply("abs", self)

    def __lt__(self, other: Expr | Number) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Expr | Number) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Expr | Number) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return apply("ge", self, other)

    def __eq__(self, other: Expr | Number) -> Expr:  # type: ignore[override]
        return apply("eq", self, other)

    def __ne__(self, other: Expr | Number) -> Expr:  # type: ignore[override]
        return apply("ne", self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        raise RuleError(
            "the truth of an expression is not known when the rule is built (if, and, or, not, a < b < c, built-in "
            "min and max); use where(condition, a, b), and min and max of nos_ext.ops"
        )

    def __repr__(self) -> str:
        return f"Expr({shortened_text(postorder([self]))})"


_set_op, _set_args, _set_value, _set_level = [vars(Expr)[name].__set__ for name in ("op", "args", "value", "level")]

PARAM: Final = Expr("param", (), None, ELEMENT)
GRAD: Final = Expr("grad", (), None, ELEMENT)
STEP: Final = Expr("step", (), None, SCALAR)
TOTAL: Final = Expr("total", (), None, SCALAR)


def state(name: str) -> Expr:
    """Makes a leaf that stands for the state of that name, as it was before the step."""
    return Expr("state", (), name, OPEN)


def hyper(name: str) -> Expr:
    """Makes a leaf that stands for the hyperparameter of that name."""
    return Expr("hyper", (), name, SCALAR)


def constant(value: Number) -> Expr:
    """Makes a leaf of a number. RuleError tells of anything that is not a real number which a double can hold."""
    if isinstance(value, bool):
        raise RuleError(f"{value} is not a number; write 1 or 0")
    if not isinstance(value, numbers.Real):
        raise RuleError(f"{shown(value)} cannot be part of a rule; use expressions and real numbers")
    try:
        number = float(value)
    except OverflowError:
        raise RuleError("an integer is too large for a double; write it as 1e300 or smaller") from None
    if math.isnan(number):
        raise RuleError("NaN cannot be a constant of a rule")
    return Expr("constant", (), number, SCALAR)


def as_expr(value: Expr | Number) -> Expr:
    """Returns `value` itself if it is an Expr, and else a constant."""
    return value if type(value) is Expr else constant(value)  # type: ignore[arg-type]


def apply(op: str, *operands: Expr | Number) -> Expr:
    """Builds the node `op(*operands)`.

    Raises:
        RuleError: the op is unknown or takes another number of operands, or a tensor stands where a scalar goes, or a
            scalar where a tensor goes. Of states, which may be either, a Definition tells.
    """
    spec = OPS.get(op)
    if spec is None:
        raise RuleError(f"there is no op '{op}'; nos_ext.ops.OPS has the list")
    if len(operands) != spec.arity:
        raise RuleError(
            f"{op} takes {spec.arity} argument{'s' if spec.arity > 1 else ''}, {len(operands)} given ({op}: {spec.doc})"
        )
    args = tuple([x if type(x) is Expr else constant(x) for x in operands])  # type: ignore[arg-type]
    if spec.domain != "any":
        return Expr(op, args, None, level_of(spec, [x.level for x in args]))
    level = SCALAR
    for x in args:
        if x.level > level:
            level = x.level
    return Expr(op, args, None, level)


def rebuilt(op: str, args: tuple[Expr, ...], value: NewtonSchulz | None = None) -> Expr:
    """Builds a node like `apply`, but without its checks: for walks over a graph that has passed them."""
    if op in RANDOM or op in MATRIX:
        return Expr(op, args, value, ELEMENT)
    return Expr(op, args, None, TENSOR if op in REDUCTIONS else max([x.level for x in args]))


def carry(order: Iterable[Expr], new: dict[Expr, Expr]) -> None:
    """Extends `new`, which says what some nodes become, to all nodes of `order`, a postorder."""
    for node in order:
        if node not in new:
            args = tuple([new[x] for x in node.args])
            new[node] = rebuilt(node.op, args, node.value) if args else node  # type: ignore[arg-type]


def level_of(spec: OpSpec, levels: Sequence[Level]) -> Level:
    """Returns the level of an op's result, given those of its operands.

    Raises:
        RuleError: the op does not take operands of these levels. Those that are OPEN may turn out to be right.
    """
    if spec.domain == "random":
        if levels[-1] == ELEMENT:
            raise RuleError(f"the last argument of {spec.name} must be a scalar ({_SCALARS}), not a tensor")
        return ELEMENT
    if spec.domain in ("reduce", "global", "matrix"):
        if min(levels) <= TENSOR:
            found = "a scalar" if SCALAR in levels else "what is one number per tensor already"
            raise RuleError(f"{spec.name} takes a tensor (p, g, a state or what is made of them), not {found}")
        return ELEMENT if spec.domain == "matrix" else TENSOR
    if spec.domain == "scalar" and ELEMENT in levels:
        raise RuleError(f"{spec.name} works on scalars only ({_SCALARS}), not on tensors")
    return max(levels)


_SCALARS: Final = "numbers, hyperparameters, t, T, norms and the like"


def postorder(outputs: Iterable[Expr]) -> list[Expr]:
    """Lists every node that the outputs need, once each, operands first and from left to right, without recursion."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = list(outputs)[::-1]
    while stack:
        node = stack[-1]
        if node in seen:
            stack.pop()
            continue
        ready = True
        for x in node.args[::-1]:
            if x not in seen:
                stack.append(x)
                ready = False
        if ready:
            stack.pop()
            seen.add(node)
            order.append(node)
    return order


def use_counts(order: Sequence[Expr], outputs: Sequence[Expr] = ()) -> dict[Expr, int]:
    """Counts how often each node is an operand of the nodes of `order`, or an output. Others are left out."""
    uses: dict[Expr, int] = {}
    for node in [*outputs, *[x for n in order for x in n.args]]:
        uses[node] = uses.get(node, 0) + 1
    return uses


def draws(outputs: Iterable[Expr]) -> dict[Expr, int]:
    """Numbers the random nodes by the order in which a program draws; the number is the site of a draw."""
    return {node: site for site, node in enumerate(n for n in postorder(outputs) if n.op in RANDOM)}
