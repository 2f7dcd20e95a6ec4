"""Owns which numbers of a rule are constants that can be tuned, and in which coordinate each of them varies.

The constants are the numbers in the text of a rule and the defaults of its hyperparameters, but lr. Small whole numbers
stay as they are, and so does what is below GUARD, which keeps a division from going wrong, unless it is a weight of an
average. `prove` takes the numbers of a text from here, too (prove/space.py).

For the command `constants` an update over the paper's operands, which has the weights of their averages as
hyperparameters, is written out as a function if it has any; so is a rule of the library. A number that does nothing but
multiply the whole update is left alone: a learning rate does that already.

Each constant has a coordinate x, which is 0 where the rule has it. A step of 1 is about what matters:

- "decay": 1 - d doubles. A decay is the weight of a state, one of two weights that add up to 1, the d of `1 - d` and of
  `d ** t`, or a hyperparameter between 0.5 and 1. Decays of equal value are one constant, since one is the weight of an
  average and another corrects its bias; and the other weight of an average stays what is missing to 1.
- "probability": the odds double; of a drop.
- "signed": it moves by its own size, through 0 if need be; for what is negative.
- "scale": it doubles; for all else.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

import nos_ext
from nos_ext.optim import library

from ..errors import UsageError
from ..rules import CompiledRule, compile_rule
from .text import Place, bare, digits, tree_of, with_numbers

Kind = Literal["decay", "probability", "signed", "scale"]
GUARD: Final = 1e-5  # below it a number is an eps
SMALL: Final = 10  # the largest of the small whole numbers
_LEAST_REST, _MOST_REST = 1e-6, 0.99  # of 1 - d
_ODDS: Final = (1e-3, 100.0)
_FAR: Final = 10.0  # of the other coordinates: factors of 1024
_NEAR: Final = 1e-9
_MOST_SHOWN: Final = 40  # characters


@dataclass(frozen=True)
class Constant:
    """A constant of a rule: a hyperparameter by its name, or a number by the piece of the formula in which it stands.
    It stands at `places` of the text, and what is missing of it to 1 at the `rests`."""

    name: str
    kind: Kind
    value: float
    places: tuple[Place, ...]
    rests: tuple[Place, ...] = ()

    def at(self, x: float) -> float:
        """Returns the value at a coordinate, with four digits; of a decay those of 1 - d."""
        if self.kind == "decay":
            return 1 - digits((1 - self.value) * 2.0**x)
        if self.kind == "probability":
            odds = self.value / (1 - self.value) * 2.0**x
            return digits(odds / (1 + odds))
        if self.kind == "signed":
            return digits(self.value * (1 - x))
        return digits(self.value * 2.0**x)

    def placed(self, value: float) -> Iterator[tuple[Place, float]]:
        """Yields what stands at each of its places where it has this value."""
        yield from ((place, value) for place in self.places)
        yield from ((place, digits(1 - value)) for place in self.rests)

    @property
    def bounds(self) -> tuple[float, float]:
        """Returns the lowest and the highest coordinate."""
        if self.kind == "decay":
            rest = 1 - self.value
            return min(0.0, math.log2(_LEAST_REST / rest)), max(0.0, math.log2(_MOST_REST / rest))
        if self.kind == "probability":
            odds = self.value / (1 - self.value)
            return min(0.0, math.log2(_ODDS[0] / odds)), max(0.0, math.log2(_ODDS[1] / odds))
        return -_FAR, _FAR


@dataclass(frozen=True)
class Constants:
    """The constants of a rule. `text` is the rule as it is written out, and `factors` are those of its constants that
    are left alone, because all that they do is multiply the learning rate."""

    rule: CompiledRule
    text: str
    tuned: tuple[Constant, ...]
    factors: tuple[Constant, ...]

    @classmethod
    def of(cls, rule: CompiledRule) -> Constants:
        """Finds them. Raises UsageError where there are none."""
        text = _written_out(rule)
        found = constants_of(text, rule.program)
        every = cls(rule, text, tuple(found), ())
        moved = [every._is_factor(k) for k in range(len(found))]
        tuned = tuple(each for each, factor in zip(found, moved, strict=True) if not factor)
        factors = tuple(each for each, factor in zip(found, moved, strict=True) if factor)
        if not tuned:
            only = f" but {_named(factors)}, which the learning rate makes up for" if factors else ""
            raise UsageError(
                f"{rule.label} has no constants to tune{only}; whole numbers up to {SMALL} and numbers below {GUARD:g} "
                "are left as they are"
            )
        return cls(rule, text, tuned, factors)

    def values(self, x: Sequence[float]) -> list[float]:
        """Returns the values of the tuned constants at these coordinates."""
        return [each.at(u) for each, u in zip(self.tuned, x, strict=True)]

    def at(self, x: Sequence[float]) -> CompiledRule:
        """Returns the rule with the constants at these coordinates."""
        pairs = zip(self.tuned, self.values(x), strict=True)
        return compile_rule(with_numbers(self.text, [entry for each, value in pairs for entry in each.placed(value)]))

    def _is_factor(self, k: int) -> bool:
        """Tells whether a constant does nothing but multiply the whole update."""
        if self.tuned[k].kind not in ("scale", "signed"):
            return False
        coordinates = np.eye(len(self.tuned))[k]
        return _same_but_for_length(self.rule.program, self.at([float(u) for u in coordinates]).program)


def _written_out(rule: CompiledRule) -> str:
    """Returns the text in which the constants are looked for."""
    if rule.text in library.names():
        return library.get(rule.text).to_text()
    hidden = rule.is_update and any(value is not None for value in rule.program.hyperparameters.values())
    return rule.program.to_text() if hidden else bare(rule.text)


def _named(constants: Sequence[Constant]) -> str:
    return ", ".join(f"{each.value:g} in {each.name}" for each in constants)


# --- the numbers of a text -------------------------------------------------------------------------------------------


def constants_of(text: str, program: nos_ext.Program) -> list[Constant]:
    """Returns the constants of a rule's text, in the order in which they stand there. `program` is the rule's."""
    return [*_Reader(text, program)]


class _Reader:
    """This reads the constants of a rule's text, in the order in which they stand there."""

    def __init__(self, text: str, program: nos_ext.Program) -> None:
        tree, self._shift = tree_of(text)
        self._tree = tree
        self._program = program
        self._above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._states = set(program.state_names)
        self._rests = dict(self._pairs())  # the second weight of an average -> the first
        self._weights = {*self._rests, *self._rests.values()}

    def __iter__(self) -> Iterator[Constant]:
        found: dict[object, Constant] = {}
        for node, value, name in sorted(self._numbers(), key=lambda entry: self._place(entry[0])):
            owner = self._rests.get(node)
            if owner is not None:
                value = _number(owner) or 0.0
            kind = self._kind(owner or node, value, name)
            key = round(value, 9) if kind == "decay" and not name else node
            known = found.get(key) or Constant(name or self._shown(node), kind, value, ())
            place = (self._place(node),)
            found[key] = (
                Constant(known.name, kind, known.value, known.places, known.rests + place)
                if owner is not None
                else Constant(known.name, kind, known.value, known.places + place, known.rests)
            )
        yield from found.values()

    def _numbers(self) -> Iterator[tuple[ast.expr, float, str]]:
        """Yields the numbers that can be tuned, with the names of those that are defaults of hyperparameters."""
        inside: set[ast.AST] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.arguments):
                for argument, default in zip(node.kwonlyargs, node.kw_defaults, strict=True):
                    inside |= set() if default is None else set(ast.walk(default))
                    value = self._program.hyperparameters.get(argument.arg)
                    if default is not None and value is not None and GUARD <= abs(value) < math.inf:
                        yield default, value, argument.arg
        for node in ast.walk(self._tree):
            if node in inside or not isinstance(node, ast.Constant):
                continue
            above = self._above[node]
            whole = above if isinstance(above, ast.UnaryOp) and isinstance(above.op, ast.USub) else node
            number = _number(whole)
            if number is not None and (whole in self._weights or not _stays(number)):
                yield whole, number, ""

    def _kind(self, node: ast.expr, value: float, name: str) -> Kind:
        above = self._above[node]
        if name:
            return "decay" if 0.5 < value < 1 else "scale" if value > 0 else "signed"
        if isinstance(above, ast.Call) and isinstance(above.func, ast.Name) and above.func.id == "drop":
            return "probability" if 0 < value < 1 else "scale"
        if 0 < value < 1 and self._is_weight(node):
            return "decay"
        return "scale" if value > 0 else "signed"

    def _is_weight(self, node: ast.expr) -> bool:
        """Tells whether a number between 0 and 1 says how much of an average is kept."""
        if node in self._weights:
            return True
        above = self._above[node]
        if not isinstance(above, ast.BinOp):
            return False
        if isinstance(above.op, ast.Pow):
            return above.left is node
        if isinstance(above.op, ast.Sub):
            return above.right is node and _number(above.left) == 1
        return any(isinstance(x, ast.Name) and x.id in self._states for x in _factors(self._product(node)))

    def _pairs(self) -> Iterator[tuple[ast.expr, ast.expr]]:
        """Yields the two weights of each weighted average, the one that is kept of a state, or the larger one, last."""
        for node in ast.walk(self._tree):
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)):
                continue
            sides = [_factors(side) for side in (node.left, node.right)]
            weights = [[x for x in side if 0 < (_number(x) or 0) < 1] for side in sides]
            if not all(len(found) == 1 for found in weights):
                continue
            (first,), (second,) = weights
            a, b = _number(first) or 0.0, _number(second) or 0.0
            if abs(a + b - 1) > _NEAR:
                continue
            kept = [any(isinstance(x, ast.Name) and x.id in self._states for x in side) for side in sides]
            forward = kept[0] if kept[0] != kept[1] else a >= b
            yield (second, first) if forward else (first, second)

    def _product(self, node: ast.expr) -> ast.expr:
        """Returns the whole product of which the number is a factor."""
        while isinstance(above := self._above[node], ast.BinOp) and isinstance(above.op, ast.Mult):
            node = above
        return node

    def _place(self, node: ast.expr) -> Place:
        assert node.end_col_offset is not None
        return node.lineno - self._shift, node.col_offset, node.end_col_offset

    def _shown(self, node: ast.expr) -> str:
        """Returns the piece of the formula in which a number stands."""
        above = self._above[node]
        text = ast.unparse(above if isinstance(above, ast.expr) else node)
        return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _number(node: ast.AST) -> float | None:
    """Returns the number that a node is, with its sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _number(node.operand) if isinstance(node.operand, ast.Constant) else None
        return None if number is None else -number
    value: Any = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)


def _stays(number: float) -> bool:
    """Tells whether a number is no constant: a small whole one, an eps, or none that is finite."""
    size = abs(number)
    return not GUARD <= size < math.inf or (size == int(size) and size <= SMALL)


def _factors(node: ast.expr) -> list[ast.expr]:
    """Returns the factors of a product, or the node alone."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


# --- what a learning rate makes up for -------------------------------------------------------------------------------

_STEPS, _SIZE, _RATE, _CLOSE = 6, 64, 1e-6, 1e-5


def _same_but_for_length(first: nos_ext.Program, second: nos_ext.Program) -> bool:
    """Tells whether the updates of two rules differ by one factor, other than 1, in all elements and steps."""
    ratios = []
    moves = [_moves(program) for program in (first, second)]
    for a, b in zip(*moves, strict=True):
        big = np.abs(a) > 1e-3 * np.abs(a).max()
        ratios.append(b[big] / a[big])
    every = np.concatenate(ratios)
    if not len(every) or not np.isfinite(every).all():
        return False
    middle = float(np.median(every))
    return abs(middle - 1) > 0.01 and bool((np.abs(every - middle) <= _CLOSE * abs(middle)).all())


def _moves(program: nos_ext.Program) -> list[np.ndarray]:
    """Returns the updates of some steps. The rate is so small that a rule which reads the parameter sees the same."""
    draw = np.random.RandomState(1)
    params = [draw.normal(size=_SIZE) + 3.0]
    state = nos_ext.init_state(program, params)
    found = []
    for step in range(1, _STEPS + 1):
        before = params[0].copy()
        grads = [draw.normal(size=_SIZE) * 0.1 + 0.05]
        nos_ext.apply_rule(program, params, grads, state, lr=_RATE, step=step, total_steps=_STEPS, seed=1)
        found.append((before - params[0]) / _RATE)
    return found
