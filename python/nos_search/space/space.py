"""Owns the paper's search space: strings of tokens, which of them may follow each other, and the rules that they mean.

A rule is 1 to 4 groups of five predictions (group.py). The value of the last group is the update u of `p - lr * u`.
Every position has its own vocabulary, so a token is an index into the vocabulary of its position.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..errors import UsageError, choose
from ..known import OF_GROUPS, RULES
from .base import Position, SearchSpace, Tokens
from .group import GROUP, Group, Meaning, Shape
from .vocabulary import VOCABULARIES, Token, rows

MAX_GROUPS = 4
_KINDS = Group("operand", "operand", "unary", "unary", "binary")
_OP2 = Group._fields.index("op2")


@dataclass(frozen=True)
class Options:
    """These are the open points of the paper, each with the default that this package takes.

    `bias_correction` divides m, v and y by 1 - decay^t, as Adam does; without it they are plain averages, as in
    TensorFlow's release.
    `drop_rescale` divides what drop(x, p) keeps by 1 - p, as two replicas do; without it the others are only zeroed.
    `noise_variance` takes the 0.01 of the noise operand for a variance, so that the standard deviation is 0.1; without
    it 0.01 is the standard deviation.
    `distinct_operands` makes op1 and op2 of a group differ.
    `last_not_add` keeps the plain sum from being the last group's binary function, where it would split the rule into
    two rules.
    `use_earlier` makes every group after the first use at least one earlier output.
    """

    bias_correction: bool = True
    drop_rescale: bool = False
    noise_variance: bool = False
    distinct_operands: bool = True
    last_not_add: bool = True
    use_earlier: bool = True


class Space(SearchSpace):
    """The space of the paper. Equal configurations give equal spaces; config() is what a run stores.

    Raises UsageError for an unknown vocabulary or a number of groups outside 1..4.
    """

    kind: ClassVar[str] = "nos"
    block = GROUP

    def __init__(self, *, vocabulary: str = "arxiv", groups: int = 2, options: Options | None = None) -> None:
        if vocabulary not in VOCABULARIES:
            raise choose("vocabulary", vocabulary, tuple(VOCABULARIES))
        if not 1 <= groups <= MAX_GROUPS:
            raise UsageError(f"groups {groups} is outside 1..{MAX_GROUPS}; the paper uses 1 to 4 groups")
        super().__init__()
        self.vocabulary = vocabulary
        self.groups = groups
        self.options = options or Options()
        positions = []
        for group in range(groups):
            earlier = tuple(Token(f"out{k + 1}", "", (), f"output of group {k + 1}") for k in range(group))
            for name, kind in _KINDS._asdict().items():
                tokens = rows(vocabulary, kind) + (earlier if kind == "operand" else ())
                positions.append(Position(f"{name}.{group + 1}", kind, group, tokens))
        self.positions: tuple[Position, ...] = tuple(positions)
        self.operands, self.unary, self.binary = (rows(vocabulary, kind) for kind in ("operand", "unary", "binary"))
        left = next((k for k, token in enumerate(self.binary) if token.name == "left"), -1)
        self.shape = Shape(groups, len(self.operands), len(self.unary), left)

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "groups": self.groups,
            "options": asdict(self.options),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Space:
        known = {field.name for field in fields(Options)}
        options = Options(**{name: bool(value) for name, value in config["options"].items() if name in known})
        return cls(vocabulary=str(config["vocabulary"]), groups=int(config["groups"]), options=options)

    # --- masks -----------------------------------------------------------------------------------------------------

    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        where = len(prefix)
        return (where, prefix[-1]) if where % GROUP == _OP2 else where

    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        where = len(prefix)
        position = self.positions[where]
        allowed = [True] * len(position.tokens)
        field = Group._fields[where % GROUP]
        if field == "op2":
            left = prefix[where - 1]
            if self.options.use_earlier and position.group > 0 and left < len(self.operands):
                allowed = [index >= len(self.operands) for index in range(len(allowed))]
            if self.options.distinct_operands:
                allowed[left] = False
        elif field == "b" and self.options.last_not_add and position.group == self.groups - 1:
            allowed = [token.name != "+" for token in position.tokens]
        return allowed

    def size(self, *, masked: bool = False) -> int:
        """Counts the strings: all of them, which is the paper's count, or only those that the masks leave."""
        total = 1
        for group in range(self.groups):
            operands = len(self.operands) + group
            pairs, last = operands**2, len(self.binary)
            if masked:
                base = len(self.operands) if group and self.options.use_earlier else 0
                pairs -= base**2
                if self.options.distinct_operands:
                    pairs -= operands - base
                if self.options.last_not_add and group == self.groups - 1:
                    last -= 1
            total *= pairs * len(self.unary) ** 2 * last
        return total

    # --- tokens and text -------------------------------------------------------------------------------------------

    def token_text(self, token: Token) -> str:
        """Returns the rule text of a token under this space's options."""
        if not token.option:
            return token.text
        default = getattr(Options, token.option)
        return token.text if getattr(self.options, token.option) == default else token.alt

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the update u as rule text, with as few parentheses as its grammar allows."""
        return ast.unparse(ast.parse(self.shape.fold(tokens, _Text(self)), mode="eval"))

    def live(self, tokens: Sequence[int]) -> list[bool]:
        """Tells for each position whether the rule depends on its token.

        The right side of a keep-left is dead, and so are groups whose output is not used, and all that only these use.
        """
        sides = self.shape.fold(tokens, _Sides())
        result: list[bool] = []
        for group in range(self.groups):
            left, right = 2 * group in sides, 2 * group + 1 in sides
            result += Group(op1=left, op2=right, u1=left, u2=right, b=left)
        return result

    def known(self) -> dict[str, Tokens]:
        from .encode import encode

        found = {}
        for name in OF_GROUPS:
            text = RULES[name].update
            if not self.options.bias_correction:
                text = text.replace("m_hat", "m").replace("v_hat", "v")
            try:
                found[name] = encode(self, text)
            except UsageError:
                continue  # this vocabulary, these groups or these masks cannot write it
        return found


class _Text(Meaning[str]):
    """A value is the text of a rule, with more parentheses than it needs."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def operand(self, token: int) -> str:
        return self._space.token_text(self._space.operands[token])

    def unary(self, token: int, x: str, place: int) -> str:
        return self._space.token_text(self._space.unary[token]).format(f"({x})")

    def binary(self, token: int, left: str, right: str) -> str:
        return self._space.token_text(self._space.binary[token]).format(f"({left})", f"({right})")


class _Sides(Meaning[frozenset[int]]):
    """A value is the places of all sides that it is made of."""

    def operand(self, token: int) -> frozenset[int]:
        return frozenset()

    def unary(self, token: int, x: frozenset[int], place: int) -> frozenset[int]:
        return x | {place}

    def binary(self, token: int, left: frozenset[int], right: frozenset[int]) -> frozenset[int]:
        return left | right
