"""Owns the rules of an optimizer: the one that it was made with, and those that single param groups have of their own.

The text of a group's rule is the group's `rule`, so a checkpoint says which it was.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..rule import MatrixProgram, Program, Rule
from ..rule.program import master_form
from ._entry import MADE_WITH, MODE
from ._group_values import GroupValues
from ._masters import keeps_masters
from ._values import RuleSource, Scalar, as_program, same_rule


@dataclass(frozen=True)
class GroupRule:
    """A GroupRule is a compiled rule, with what may stand in the param groups that have it."""

    text: str
    program: Program | MatrixProgram
    values: GroupValues

    def form(self, group: Mapping[str, Any]) -> Program | MatrixProgram:
        """Returns what is run for a group that has this rule: the rule, or its form with master weights."""
        return master_form(self.program) if keeps_masters(group) else self.program

    def defaults(self, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of a group that gives none itself. `shared` has lr and the flags."""
        out = {**self.program.hyperparameters, **shared, "rule": self.text}
        return {**out, MODE: True, MADE_WITH: None} if self.values.averaged else out


# Some trainings make an optimizer for each parameter, all with the same rule.
_ONCE: Final = functools.lru_cache(maxsize=256)


@_ONCE
def _facts(program: Program | MatrixProgram) -> tuple[str, GroupValues]:
    return program.to_text(), GroupValues(program)


def _group_rule(source: RuleSource) -> GroupRule:
    program = as_program(source)
    text, values = _facts(program)
    return GroupRule(text, program, values)


_known_rule: Final = _ONCE(_group_rule)  # of sources that mean the same whenever they are read; functions do not


class Rules:
    """Rules are the rules that the groups of an optimizer may have; `default` is that of groups that name none."""

    def __init__(self, default: RuleSource) -> None:
        self._known: dict[str, GroupRule] = {}
        self.averages = False  # whether some have other weights for evaluation than those that are trained
        self.default = self.add(default)

    def __iter__(self) -> Iterator[GroupRule]:
        return iter(self._known.values())

    def add(self, source: RuleSource) -> GroupRule:
        """Returns the rule of `source`, which a group may have from now on."""
        if isinstance(source, str):
            for rule in self:
                if same_rule(source, rule.text):
                    return rule
        made = _known_rule(source) if type(source) in (str, Rule) else _group_rule(source)
        rule = self._known.setdefault(made.text, made)
        self.averages = self.averages or rule.values.averaged is not None
        return rule

    def of(self, group: Mapping[str, Any]) -> GroupRule:
        """Returns the rule of a param group. Raises ValueError if it is none of those that were added."""
        text = group.get("rule", self.default.text)
        if isinstance(text, str) and text in self._known:
            return self._known[text]
        for rule in self:  # the same rule in other words
            if same_rule(text, rule.text):
                return rule
        raise ValueError(
            f"the param group has the rule of another optimizer:\n{text}\nthis optimizer has\n{self.texts()}\nthe rule "
            "of a group stays what it was made with: add a new group, or make a new optimizer"
        )

    def resolve(self, name: str, value: Any, group: dict[str, Any]) -> Scalar:
        """Returns what a value in a param group stands for: a number, a tensor, or a function of the step."""
        return self.of(group).values.resolve(name, value, group)

    def texts(self) -> str:
        """Returns the texts of all of them."""
        return "\n".join(rule.text for rule in self)

    def programs(self, groups: Iterable[Mapping[str, Any]]) -> list[Program | MatrixProgram]:
        """Returns the program of each group."""
        return [self.of(group).program for group in groups]

    def forms(self, groups: Iterable[Mapping[str, Any]]) -> list[Program | MatrixProgram]:
        """Returns what is run for each group."""
        return [self.of(group).form(group) for group in groups]
