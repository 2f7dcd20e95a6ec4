"""Owns the search space: strings of tokens, which of them may follow each other, and the rule text they stand for.

A rule is 1 to 4 groups of five predictions (op1, op2, u1, u2, b) meaning b(u1(op1), u2(op2)). A later group may pick
the output of an earlier one as an operand. The last group's value is the update u of `p - lr * u`. Every position has
its own vocabulary, so a token is an index into the vocabulary of its position.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..errors import UsageError, choose
from .base import Position, SearchSpace, Tokens
from .vocabulary import VOCABULARIES, Kind, Token, rows

__all__ = ["GROUP", "MAX_GROUPS", "Options", "Position", "Space", "Tokens"]

MAX_GROUPS = 4
_FIELDS: tuple[tuple[str, Kind], ...] = (
    ("op1", "operand"),
    ("op2", "operand"),
    ("u1", "unary"),
    ("u2", "unary"),
    ("b", "binary"),
)
GROUP = len(_FIELDS)


@dataclass(frozen=True)
class Options:
    """Open points of the paper, each with the default this package takes.

    bias_correction: m, v, y are divided by 1 - decay^t (as in Adam). Off: plain averages, as in TensorFlow's release.
    drop_rescale: survivors of drop(x, p) are divided by 1 - p, as two replicas do. Off: only zeroed.
    noise_variance: the 0.01 of the noise operand is a variance (standard deviation 0.1). Off: a standard deviation.
    distinct_operands: op1 and op2 of a group differ.
    last_not_add: the last group's binary function is not the plain sum, which would split the rule into two rules.
    use_earlier: every group after the first uses at least one earlier output.
    """

    bias_correction: bool = True
    drop_rescale: bool = False
    noise_variance: bool = False
    distinct_operands: bool = True
    last_not_add: bool = True
    use_earlier: bool = True


class Space(SearchSpace):
    """The space of the paper. Equal configurations give equal spaces; `config()` is what a run stores.

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
            for name, kind in _FIELDS:
                tokens = rows(vocabulary, kind) + (earlier if kind == "operand" else ())
                positions.append(Position(f"{name}.{group + 1}", kind, group, tokens))
        self.positions: tuple[Position, ...] = tuple(positions)
        self.base_operands = len(rows(vocabulary, "operand"))

    def config(self) -> dict[str, Any]:
        """JSON-able description from which `from_config` rebuilds this space."""
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
        return (where, prefix[-1]) if _FIELDS[where % GROUP][0] == "op2" else where

    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        where = len(prefix)
        position = self.positions[where]
        allowed = [True] * len(position.tokens)
        field = _FIELDS[where % GROUP][0]
        if field == "op2":
            left = prefix[where - 1]
            if self.options.use_earlier and position.group > 0 and left < self.base_operands:
                allowed = [index >= self.base_operands for index in range(len(allowed))]
            if self.options.distinct_operands:
                allowed[left] = False
        elif field == "b" and self.options.last_not_add and position.group == self.groups - 1:
            allowed = [token.name != "+" for token in position.tokens]
        return allowed

    def size(self, *, masked: bool = False) -> int:
        """Number of strings: all of them (the paper's count), or only those that the masks leave."""
        unary = len(rows(self.vocabulary, "unary"))
        binary = len(rows(self.vocabulary, "binary"))
        total = 1
        for group in range(self.groups):
            operands = self.base_operands + group
            pairs, last = operands**2, binary
            if masked:
                base = self.base_operands if group and self.options.use_earlier else 0
                pairs -= base**2
                if self.options.distinct_operands:
                    pairs -= operands - base
                if self.options.last_not_add and group == self.groups - 1:
                    last -= 1
            total *= pairs * unary**2 * last
        return total

    # --- tokens and text -------------------------------------------------------------------------------------------

    def token_text(self, token: Token) -> str:
        """Rule text of a token under this space's options."""
        if not token.option:
            return token.text
        default = getattr(Options, token.option)
        return token.text if getattr(self.options, token.option) == default else token.alt

    def text(self, tokens: Sequence[int]) -> str:
        """The update u as rule text, with as few parentheses as its grammar allows."""
        outputs: list[str] = []
        for group in range(self.groups):
            op1, op2, u1, u2, b = (
                position.tokens[token]
                for position, token in zip(
                    self.positions[group * GROUP : (group + 1) * GROUP],
                    tokens[group * GROUP : (group + 1) * GROUP],
                    strict=True,
                )
            )
            sides = []
            for operand, unary in ((op1, u1), (op2, u2)):
                inner = self.token_text(operand) or outputs[int(operand.name.removeprefix("out")) - 1]
                sides.append(self.token_text(unary).format(f"({inner})"))
            outputs.append(self.token_text(b).format(f"({sides[0]})", f"({sides[1]})"))
        return ast.unparse(ast.parse(outputs[-1], mode="eval"))

    def live(self, tokens: Sequence[int]) -> list[bool]:
        """For each position: whether the rule depends on its token.

        Dead are the right side of a keep-left, groups whose output is not used, and all that only these use.
        """
        result = [False] * self.length
        wanted = {self.groups - 1}
        for group in reversed(range(self.groups)):
            if group not in wanted:
                continue
            start = group * GROUP
            op1, op2, u1, u2, b = range(start, start + GROUP)
            sides = [(op1, u1)]
            if self.positions[b].tokens[tokens[b]].name != "left":
                sides.append((op2, u2))
            result[b] = True
            for operand, unary in sides:
                result[operand] = result[unary] = True
                if tokens[operand] >= self.base_operands:
                    wanted.add(tokens[operand] - self.base_operands)
        return result

    def uses_gradient(self, tokens: Sequence[int]) -> bool:
        """Whether a live operand carries the gradient; without one the rule cannot learn."""
        return any(
            position.tokens[token].gradient
            for position, token, live in zip(self.positions, tokens, self.live(tokens), strict=True)
            if live
        )

    def known(self) -> dict[str, Tokens]:
        from .encode import encode

        found = {}
        for name, text in _KNOWN.items():
            if not self.options.bias_correction:
                text = text.replace("m_hat", "m").replace("v_hat", "v")
            try:
                found[name] = encode(self, text)
            except UsageError:
                continue  # this vocabulary, these groups or these masks cannot write it
        return found


_KNOWN = {
    "sgd": "g",
    "momentum": "m_hat",
    "adam": "adam",
    "rmsprop": "rmsprop",
    "signsgd": "sign(g)",
    "signum": "sign(m_hat)",
    "powersign": "g * exp(sign(g) * sign(m_hat))",
    "addsign": "g * (1 + sign(g) * sign(m_hat))",
}
