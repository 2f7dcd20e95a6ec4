"""Owns the space in which a rule's constants are tuned: the same for a rule that was found and for every baseline.

A space has one dimension for the weight decay and one for each constant of the rule:

- Weight decay is one of WEIGHT_DECAYS. A rule with a hyperparameter weight_decay has it there. Any other gets
  `- lr * weight_decay * p` on top of its update.
- The constants of a rule are its hyperparameters but lr, and the numbers that stand in its text (numbers/constants.py),
  but not in a rule of the library, where text is not the user's. Small whole numbers and those below GUARD, which keep
  a division from going wrong, are left as they are.
- A decay and all that must move with it are one constant: the weight of an average, the other weight, which is what is
  missing to 1, and the correction of its bias. So a rule that spells its averages out has the dimensions of one that
  has them as hyperparameters, and each point of it is a rule of the same form.
- A decay x in (0.5, 1), or a hyperparameter there, varies as 1 - x, by factors up to NEAR_ONE, and never falls below
  0.5. The odds of any other decay, and of a drop, vary by factors up to FACTOR, and so does any other number itself.

Point 0 has everything as the rule has it. Point k > 0 is point k of Sobol's sequence, without scrambling, in which each
factor is spaced evenly in its logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from nos_ext import Rule
from nos_ext.optim import library
from nos_ext.rule import as_rule
from nos_ext.rule.expr import PARAM, hyper

from ..numbers import GUARD, Constant, Kind, bare, constants_of, digits, with_numbers
from ..rules import CompiledRule, compile_rule

WEIGHT_DECAYS: Final = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
NEAR_ONE: Final = 8.0
FACTOR: Final = 4.0
_DECAY: Final = "weight_decay"


@dataclass(frozen=True)
class Dimension:
    """A constant that is tuned, by a name that says where it is, its value in the rule as it is, and its kind."""

    name: str
    value: float
    kind: Kind = "scale"

    @classmethod
    def of(cls, name: str, value: float) -> Dimension:
        """Returns that of a hyperparameter, of which no formula says what it is."""
        return cls(name, value, "decay" if 0.5 < value < 1 else "scale" if value > 0 else "signed")

    def at(self, u: float) -> float:
        """Returns the value at place u of [0, 1), of which 0.5 is the rule's own, with four digits."""
        if self.kind == "decay" and self.value > 0.5:
            found = 1 - min(0.5, (1 - self.value) * NEAR_ONE ** (1 - 2 * u))
        elif self.kind in ("decay", "probability"):
            odds = self.value / (1 - self.value) * FACTOR ** (2 * u - 1)
            found = odds / (1 + odds)
        else:
            found = self.value * FACTOR ** (2 * u - 1)
        # of 0.9990 the four digits that matter are those of 0.0010, and the other weight of an average has no more
        return 1 - digits(1 - found) if self.kind == "decay" or 0.5 < found < 1 else digits(found)

    def describe(self) -> dict[str, Any]:
        """Returns it as JSON, with the lowest and the highest value."""
        ends = self.at(0.0), self.at(1.0)
        return {"name": self.name, "value": self.value, "low": ends[0], "high": ends[1], "varies_as": self.kind}


@dataclass(frozen=True)
class Space:
    """The space of one rule. `hypers` and `numbers` are its dimensions besides the weight decay: hyperparameters, and
    numbers in its text. `constants` has for each of the numbers all that moves with it."""

    rule: CompiledRule
    hypers: tuple[Dimension, ...]
    numbers: tuple[Dimension, ...]
    constants: tuple[Constant, ...]

    @classmethod
    def of(cls, rule: CompiledRule) -> Space:
        found = rule.program.hyperparameters
        hypers = [
            Dimension.of(name, value)
            for name, value in found.items()
            if value is not None and name != _DECAY and GUARD <= abs(value) < math.inf
        ]
        read = [] if rule.text in library.names() else constants_of(bare(rule.text), rule.program)
        constants = [each for each in read if each.name not in found]
        numbers = [Dimension(f"number {k}", each.value, each.kind) for k, each in enumerate(constants, start=1)]
        return cls(rule, tuple(hypers), tuple(numbers), tuple(constants))

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
        pairs = zip(self.constants, self.numbers, strict=True)
        moved = [entry for constant, each in pairs for entry in constant.placed(settings[each.name])]
        text = with_numbers(bare(self.rule.text), moved)
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


def _sobol(dimensions: int, k: int) -> list[float]:
    """Returns point k of the sequence."""
    from scipy.stats import qmc  # type: ignore[import-untyped]  # imported here, as it takes a second

    points = qmc.Sobol(dimensions, scramble=False).random_base2(max(1, k.bit_length()))
    return [float(u) for u in points[k]]
