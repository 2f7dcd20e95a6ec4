"""Owns the space in which a rule's constants are tuned: the same for a rule that was found and for every baseline.

A space has one dimension for the weight decay and one for each constant of the rule:

- Weight decay is one of WEIGHT_DECAYS. A rule with a hyperparameter weight_decay has it there. Any other gets
  `- lr * weight_decay * p` on top of its update.
- The constants of a rule are its hyperparameters but lr, and the numbers that stand in its text, but not in a rule of
  the library, where text is not the user's. Small whole numbers and those below GUARD, which keep a division from going
  wrong, are left as they are.
- A constant x in (0.5, 1), such as the weight of an average, varies as 1 - x, by factors up to NEAR_ONE, and never
  falls below 0.5. Any other varies by factors up to FACTOR.

Point 0 has everything as the rule has it. Point k > 0 is point k of Sobol's sequence, without scrambling, in which each
factor is spaced evenly in its logarithm.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nos_ext import Rule
from nos_ext.optim import library
from nos_ext.rule import as_rule
from nos_ext.rule.expr import PARAM, hyper

from ..rules import CompiledRule, compile_rule

WEIGHT_DECAYS: Final = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
NEAR_ONE: Final = 8.0
FACTOR: Final = 4.0
GUARD: Final = 1e-5  # below it a number is an eps
SMALL: Final = 10  # the largest of the small whole numbers
_DECAY: Final = "weight_decay"
_LINE_END: Final = r"\r\n|\r|\n"  # as Python counts lines; str.splitlines knows more separators


@dataclass(frozen=True)
class Dimension:
    """A constant that is tuned, by a name that says where it is, and its value in the rule as it is."""

    name: str
    value: float

    def at(self, u: float) -> float:
        """Returns the value at place u of [0, 1), of which 0.5 is the rule's own, with four digits."""
        if 0.5 < self.value < 1:
            found = 1 - min(0.5, (1 - self.value) * NEAR_ONE ** (1 - 2 * u))
        else:
            found = self.value * FACTOR ** (2 * u - 1)
        # of 0.9990 the four digits that matter are those of 0.0010
        return 1 - digits(1 - found) if 0.5 < found < 1 else digits(found)

    def describe(self) -> dict[str, Any]:
        """Returns it as JSON, with the lowest and the highest value."""
        return {"name": self.name, "value": self.value, "low": self.at(0.0), "high": self.at(1.0)}


@dataclass(frozen=True)
class Space:
    """The space of one rule. `hypers` and `numbers` are its dimensions besides the weight decay: hyperparameters, and
    numbers in its text in the order of `places`, which has (line, first byte, last byte) of each."""

    rule: CompiledRule
    hypers: tuple[Dimension, ...]
    numbers: tuple[Dimension, ...]
    places: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, rule: CompiledRule) -> Space:
        found = rule.program.hyperparameters
        hypers = [
            Dimension(name, value)
            for name, value in found.items()
            if value is not None and name != _DECAY and GUARD <= abs(value) < math.inf
        ]
        numbers = [] if rule.text in library.names() else _numbers(bare(rule.text))
        dimensions = tuple(Dimension(f"number {k + 1}", value) for k, (value, _) in enumerate(numbers))
        return cls(rule, tuple(hypers), dimensions, tuple(place for _, place in numbers))

    def settings(self, k: int) -> dict[str, float]:
        """Returns what point k has, by the names of dimensions."""
        own = self.rule.program.hyperparameters.get(_DECAY)
        names = {each.name: each.value for each in (*self.hypers, *self.numbers)}
        if k == 0:
            return {_DECAY: own or 0.0, **names}
        place, *places = _sobol(1 + len(names), k)
        decay = WEIGHT_DECAYS[int(place * len(WEIGHT_DECAYS))]
        tuned = [each.at(u) for each, u in zip((*self.hypers, *self.numbers), places, strict=True)]
        return {_DECAY: decay, **dict(zip(names, tuned, strict=True))}

    def point(self, k: int) -> CompiledRule:
        """Returns the rule with the settings of point k."""
        if k == 0:
            return self.rule
        settings = self.settings(k)
        text = with_numbers(bare(self.rule.text), self.places, [settings[each.name] for each in self.numbers])
        rule = compile_rule(text, matrices=True).program.rule if text in library.names() else as_rule(text)
        changed = {name: settings.get(name, value) for name, value in rule.hyperparameters.items()}
        if _DECAY not in changed and settings[_DECAY] == 0:
            return _compiled(Rule(rule.name, rule.state_names, changed, rule.outputs))
        weight, *states = rule.outputs
        if _DECAY not in changed:
            weight = weight - hyper("lr") * hyper(_DECAY) * PARAM
        return _compiled(Rule(rule.name, rule.state_names, {**changed, _DECAY: settings[_DECAY]}, [weight, *states]))

    def describe(self) -> dict[str, Any]:
        """Returns the space as JSON."""
        own = _DECAY in self.rule.program.hyperparameters
        constants = [each.describe() for each in (*self.hypers, *self.numbers)]
        return {"weight_decay": list(WEIGHT_DECAYS), "decoupled_on_top": not own, "constants": constants}


def _compiled(rule: Rule) -> CompiledRule:
    return compile_rule(rule.to_text(), matrices=True)


def digits(value: float) -> float:
    return float(f"{value:.4g}")


def _sobol(dimensions: int, k: int) -> list[float]:
    """Returns point k of the sequence."""
    from scipy.stats import qmc  # type: ignore[import-untyped]  # imported here, as it takes a second

    points = qmc.Sobol(dimensions, scramble=False).random_base2(max(1, k.bit_length()))
    return [float(u) for u in points[k]]


def bare(text: str) -> str:
    """Returns the text without a byte order mark, which the language allows."""
    return text.removeprefix("\ufeff")


def tree_of(text: str) -> tuple[ast.Module, int]:
    """Returns the syntax tree of a rule's text, and how many lines too far down it has everything."""
    try:
        return ast.parse(text), 0
    except IndentationError:  # the language allows a text that is indented as a whole
        return ast.parse(f"if 1:\n{text}"), 1


def _numbers(text: str) -> list[tuple[float, tuple[int, int, int]]]:
    """Returns the numbers of a rule's text that are constants of it, with their places. Defaults of hyperparameters are
    not among them."""
    tree, shift = tree_of(text)
    defaults = {id(part) for node in ast.walk(tree) if isinstance(node, ast.arguments) for part in _parts(node)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in defaults:
            continue
        value = node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        small = value == int(value) and value <= SMALL if value < math.inf else True
        if small or value < GUARD or node.end_col_offset is None:
            continue
        found.append((float(value), (node.lineno - shift, node.col_offset, node.end_col_offset)))
    return sorted(found, key=lambda entry: entry[1])


def _parts(arguments: ast.arguments) -> list[ast.AST]:
    return [part for default in arguments.kw_defaults if default is not None for part in ast.walk(default)]


def with_numbers(text: str, places: Sequence[tuple[int, int, int]], values: Sequence[float]) -> str:
    """Returns the text with other numbers in these places."""
    lines = [line.encode() for line in re.split(_LINE_END, text)]
    for (line, first, last), value in sorted(zip(places, values, strict=True), reverse=True):
        lines[line - 1] = lines[line - 1][:first] + repr(value).encode() + lines[line - 1][last:]
    return b"\n".join(lines).decode()
