"""Owns the space `text`: every rule that the rule language can write, spelled by its characters.

It is the space of rules that come from outside of this package, from a program of the user's (strategy/external.py).
Whatever works on strings of tokens (gates, store, resume) works on these, as a character is a whole number too. What
draws or changes strings does not: hardly any string of characters is a rule.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, NoReturn

import torch

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.definition import MAX_STATES
from nos_ext.rule.shorthand import OPERANDS
from nos_ext.rule.table import OPS

from ..errors import UsageError
from ..rules import LONGEST, compile_rule, is_plain
from .base import SearchSpace, Tokens

_LAST = 0x10FFFF  # of Unicode
STATES = MAX_STATES - 1  # of a rule; the gates need one of those that a program may have


class TextSpace(SearchSpace):
    """A space of texts, each of which is the string of its characters' numbers. A text need not be a rule: the first
    gate finds that out, and says where it is wrong."""

    kind: ClassVar[str] = "text"
    positions = ()
    block = 1

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextSpace:
        return cls()

    def spell(self, text: str) -> Tokens:
        """Returns the string of a text. Of a rule it is one that a run can keep: the name of a library rule becomes its
        text, and what a run's file cannot hold, such as comments, is left out."""
        text = text.strip()
        if len(text) > LONGEST:
            text = f"{text[:100]} ... ({len(text)} characters; a rule has {LONGEST} at most)"
        elif text in library.names() or not is_plain(text):
            with suppress(nos_ext.RuleError):  # which the first gate says
                text = compile_rule(text).program.to_text().strip()
        return tuple(map(ord, text))

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def holds(self, tokens: Sequence[int]) -> bool:
        return len(tokens) <= LONGEST and all(0 <= token <= _LAST for token in tokens)

    def check(self, tokens: Sequence[int]) -> Tokens:
        if not self.holds(tokens):
            raise UsageError(f"tokens: these {len(tokens)} are not the numbers of at most {LONGEST} characters")
        return tuple(tokens)

    def names(self, tokens: Sequence[int]) -> tuple[str, ...]:
        return ()

    def uses_gradient(self, tokens: Sequence[int]) -> bool:
        """Says yes: what a text reads is known only when it is compiled, and the gate `effect` tries it."""
        return True

    def known(self) -> Mapping[str, Tokens]:
        return {}

    def words(self) -> dict[str, Any]:
        """Returns what rule text may consist of, as JSON: names with what they mean, and limits."""
        return {
            "longest": LONGEST,
            "states": STATES,
            "operands": {name: spec.doc for name, spec in OPERANDS.items()} | _MORE,
            "library": {name: rule.to_text().strip() for name, rule in _scored_rules()},
            "ops": {name: {"arguments": op.arity, "symbol": op.symbol, "doc": op.doc} for name, op in OPS.items()},
        }

    # --- what needs positions ----------------------------------------------------------------------------------------

    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        self._refuse()

    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        self._refuse()

    def live(self, tokens: Sequence[int]) -> list[bool]:
        self._refuse()

    def size(self, *, masked: bool = False) -> int:
        self._refuse()

    def sample(self, generator: torch.Generator) -> Tokens:
        self._refuse()

    def repair(self, tokens: Sequence[int]) -> Tokens:
        self._refuse()

    def crossover(self, left: Tokens, right: Tokens, generator: torch.Generator) -> Tokens:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(f"space {self.kind!r} has no strings to draw or change; its rules come by --strategy external")


def _scored_rules() -> Iterator[tuple[str, Any]]:
    """Yields the rules of the library that a search can score, by name."""
    for name in library.names():
        with suppress(nos_ext.RuleError):
            yield name, compile_rule(name).program


_MORE = {
    "p": "the parameter",
    "lr": "the learning rate",
    "t": "the number of the step, from 1",
    "T": "the number of steps of the whole training",
    "e": "2.71828...",
    "pi": "3.14159...",
}
