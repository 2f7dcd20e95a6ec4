"""Owns the space `program`: straight-line programs that choose their own moving averages and constants.

It has what the space of the paper lacks and the search behind Lion (Chen et al. 2023) had: averages with any decay of
any earlier value, read before or after their update, numbers, and reductions. A program has a fixed number of lines of
four predictions (op, a, b, c), which mean x_k = op(a, b; c): a and b are inputs such as g and w or earlier lines, and c
is a number. The last line is the update u of `p - lr * u`. Lines that it does not need are dead and leave no trace in
the rule. What an op does not take is fixed to index 0, so every program has one spelling of each line.

A line is a tensor, one number per tensor (a reduction, and what is made of such numbers), or one number per step. A
number meets a tensor element by element, so every op takes it, but two masks depend on it: a reduction takes tensors
only, and the update is never one number per tensor, which would move all weights of the tensor alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from nos_ext.rule.expr import ELEMENT, SCALAR, TENSOR, Level

from ..errors import UsageError, choose
from ..known import RULES
from .base import Position, SearchSpace, Tokens
from .vocabulary import Token
from .words import (
    AVERAGES,
    DECAYS,
    ELEMENTWISE,
    EQUAL_DEAD,
    MIXES,
    OPS,
    REDUCE,
    REDUCTIONS,
    SCALARS,
    TAKES_B,
    TAKES_C,
    TENSORS_ONLY,
    words_of,
)

_EMA = OPS[0].text
_LEVELS = (SCALAR, TENSOR, ELEMENT)
MIN_LINES, MAX_LINES = 2, 7  # each line may be an average, and of the 8 states of a rule the gates need one


class ProgramSpace(SearchSpace):
    """A space of programs that have `lines` lines. Raises UsageError for a number of lines outside 2..7, and for a
    vocabulary that it does not have; the first of `vocabularies` is the default."""

    kind: ClassVar[str] = "program"
    vocabularies: ClassVar[tuple[str, ...]] = (REDUCTIONS, ELEMENTWISE)
    block = 4

    def __init__(self, *, lines: int = 5, vocabulary: str | None = None) -> None:
        if not MIN_LINES <= lines <= MAX_LINES:
            raise UsageError(f"lines {lines} is outside {MIN_LINES}..{MAX_LINES}")
        vocabulary = self.vocabularies[0] if vocabulary is None else vocabulary
        if vocabulary not in self.vocabularies:
            raise choose("vocabulary", vocabulary, self.vocabularies)
        super().__init__()
        self.lines = lines
        self.words = words = words_of(vocabulary)
        positions = []
        for line in range(lines):
            operands = words.inputs + tuple(Token(f"x{k + 1}", "", (), f"line {k + 1}") for k in range(line))
            positions.append(Position(f"op.{line + 1}", "op", line, words.ops))
            positions += [Position(f"{name}.{line + 1}", "operand", line, operands) for name in ("a", "b")]
            positions.append(Position(f"c.{line + 1}", "constant", line, words.constants))
        self.positions = tuple(positions)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "lines": self.lines, "vocabulary": self.words.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ProgramSpace:
        if "lines" not in config:
            raise UsageError(f"space {cls.kind!r} needs its number of lines")
        return cls(lines=int(config["lines"]), vocabulary=str(config.get("vocabulary", ELEMENTWISE)))

    # --- masks -----------------------------------------------------------------------------------------------------

    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        where = len(prefix)
        return (where, *prefix[where - where % 4 :], self._fitting(prefix))

    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        where = len(prefix)
        tokens = self.positions[where].tokens
        field = where % 4
        if field == 0:
            last = where == self.length - 4
            return [not (last and token.name in REDUCE) for token in tokens]
        op = self.words.ops[prefix[where - field]].name
        only_first = [True] + [False] * (len(tokens) - 1)
        if field == 3:
            if op not in TAKES_C:
                return only_first
            return [op not in MIXES or index < DECAYS for index in range(len(tokens))]
        if field == 2 and op not in TAKES_B:
            return only_first
        fitting = self._fitting(prefix) or (True,) * len(tokens)
        if field == 1:  # the field of a: a function of the constant 1 alone would be a constant
            return [fits and (op in TAKES_B or token.name != "1") for fits, token in zip(fitting, tokens, strict=True)]
        return [fits and (op not in EQUAL_DEAD or k != prefix[where - 1]) for k, fits in enumerate(fitting)]

    def _fitting(self, prefix: Sequence[int]) -> tuple[bool, ...]:
        """Tells of each operand whether its level fits at the position after `prefix`; () where any does."""
        field = len(prefix) % 4
        if field not in (1, 2) or not self.words.reduces:
            return ()
        op = self.words.ops[prefix[len(prefix) - field]].name
        if op in TENSORS_ONLY:
            return tuple(level == ELEMENT for level in self._levels(prefix))
        if len(prefix) < self.length - 4 or (field == 1) == (op in TAKES_B):
            return ()
        levels = self._levels(prefix)  # of the last line, the whole of which must not be one number per tensor
        other = levels[prefix[-1]] if field == 2 else SCALAR
        return tuple(max(level, other) != TENSOR for level in levels)

    def _levels(self, prefix: Sequence[int]) -> list[Level]:
        """Returns the levels of the inputs and of all whole lines of a prefix."""
        levels = [SCALAR if token.name in SCALARS else ELEMENT for token in self.words.inputs]
        for k in range(0, len(prefix) - 3, 4):
            op = self.words.ops[prefix[k]].name
            operands = [levels[operand] for operand in prefix[k + 1 : k + (3 if op in TAKES_B else 2)]]
            levels.append(_level(op, max(operands)))
        return levels

    def size(self, *, masked: bool = False) -> int:
        """Counts the strings, and among them those that are dead in part."""
        words = self.words
        if not masked:
            counts = [
                len(words.ops) * (len(words.inputs) + line) ** 2 * len(words.constants) for line in range(self.lines)
            ]
            return math.prod(counts)
        # how many programs there are so far, by how many of their inputs and lines have each level
        levels = [SCALAR if token.name in SCALARS else ELEMENT for token in words.inputs]
        programs = Counter({tuple(levels.count(level) for level in _LEVELS): 1})
        for line in range(self.lines):
            longer: Counter[tuple[int, ...]] = Counter()
            for counted, number in programs.items():
                for level, ways in self._ways(dict(zip(_LEVELS, counted, strict=True))).items():
                    if level != TENSOR or line < self.lines - 1:
                        longer[tuple(n + (level == each) for each, n in zip(_LEVELS, counted, strict=True))] += (
                            number * ways
                        )
            programs = longer
        return programs.total()

    def _ways(self, operands: Mapping[Level, int]) -> Counter[Level]:
        """Counts the lines that the masks leave, by their level, where there are so many operands of each level."""
        ways: Counter[Level] = Counter()
        for token in self.words.ops:
            op = token.name
            numbers = (DECAYS if op in MIXES else len(self.words.constants)) if op in TAKES_C else 1
            for a in _LEVELS:
                for b in _LEVELS if op in TAKES_B else (a,):
                    if op in TENSORS_ONLY and min(a, b) < ELEMENT:
                        continue
                    if op not in TAKES_B:
                        pairs = operands[a] - (a == SCALAR)
                    else:
                        pairs = operands[a] * (operands[b] - (op in EQUAL_DEAD and a == b))
                    ways[_level(op, max(a, b))] += pairs * numbers
        return ways

    # --- tokens and text -------------------------------------------------------------------------------------------

    def _lines(self, tokens: Sequence[int]) -> list[tuple[str, int, int, int]]:
        return [(self.words.ops[tokens[k]].name, *tokens[k + 1 : k + 4]) for k in range(0, self.length, 4)]  # type: ignore[misc]

    def _wanted(self, tokens: Sequence[int]) -> list[bool]:
        """Tells for each line whether the last one needs it."""
        wanted = [False] * self.lines
        wanted[-1] = True
        for k, (op, a, b, _) in reversed(list(enumerate(self._lines(tokens)))):
            if wanted[k]:
                for operand in (a, b) if op in TAKES_B else (a,):
                    if operand >= len(self.words.inputs):
                        wanted[operand - len(self.words.inputs)] = True
        return wanted

    def live(self, tokens: Sequence[int]) -> list[bool]:
        result: list[bool] = []
        for (op, *_), wanted in zip(self._lines(tokens), self._wanted(tokens), strict=True):
            result += [wanted, wanted, wanted and op in TAKES_B, wanted and op in TAKES_C]
        return result

    def text(self, tokens: Sequence[int]) -> str:
        """Returns a function on one line with the live lines only. Each average has a state of its own, which is named
        after its line."""
        names = [token.text for token in self.words.inputs]
        states, body, updates = [], [], []
        for k, ((op, a, b, c), wanted) in enumerate(zip(self._lines(tokens), self._wanted(tokens), strict=True), 1):
            names.append(f"x{k}")
            if not wanted:
                continue
            number = self.words.constants[c].text
            parts = {"a": names[a], "b": names[b], "c": number, "s": f"m{k}"}
            if op in MIXES:
                parts["d"] = f"{1 - float(number):.12g}"
            if op in AVERAGES:
                states.append(f"m{k}")
                updates.append(f"n{k}" if op != "ema_old" else _EMA.format(**parts))
            if op == "ema_old":
                names[-1] = f"m{k}"  # the line is read under the name of its state
            elif op == "ema_hat":
                body += [f"n{k} = {_EMA.format(**parts)}", f"x{k} = n{k} / (1 - {number} ** t)"]
            elif op == "ema":
                names[-1] = f"n{k}"
                body.append(f"n{k} = {_EMA.format(**parts)}")
            else:
                text = next(token.text for token in self.words.ops if token.name == op)
                body.append(f"x{k} = {text.format(**parts)}")
        returned = ", ".join([f"p - lr * {names[-1]}", *updates])
        head = ", ".join(["p", "g", *states, "*", "lr"])
        return f"def rule({head}): " + "; ".join([*body, f"return {returned}"])

    # --- known rules -----------------------------------------------------------------------------------------------

    def assemble(self, lines: Sequence[Sequence[str]]) -> Tokens:
        """Returns the tokens of (op, a[, b][, c]) rows such as ("ema", "g", "0.9"), which are put at the end of a
        program of plain lines."""
        if len(lines) > self.lines:
            raise UsageError(f"assemble: {len(lines)} lines given, this space has {self.lines}")
        spare = self.lines - len(lines)
        tokens: list[int] = [next(k for k, op in enumerate(self.words.ops) if op.name == "sign"), 0, 0, 0] * spare
        operands = {token.name: k for k, token in enumerate(self.words.inputs)}
        constants = {token.name: k for k, token in enumerate(self.words.constants)}
        for k, (op, a, *rest) in enumerate(lines):
            index = next((i for i, token in enumerate(self.words.ops) if token.name == op), None)
            if index is None:
                raise UsageError(f"assemble: line {k + 1}: there is no op {op!r}")
            b = operands[rest.pop(0)] if op in TAKES_B else 0
            c = constants[rest.pop(0)] if op in TAKES_C else 0
            tokens += [index, operands[a], b, c]
            operands[f"x{k + 1}"] = len(self.words.inputs) + spare + k
        return self.check(tokens)

    def known(self) -> Mapping[str, Tokens]:
        lines = {name: RULES[name].lines for name in self.words.known}
        return {name: self.assemble(rows) for name, rows in lines.items() if len(rows) <= self.lines}

    # --- changes ---------------------------------------------------------------------------------------------------

    def mutate(self, tokens: Tokens, generator: torch.Generator) -> Tokens:
        """Half of the time takes another token at one place; else makes a line anew, puts one in, or takes one out."""
        kind, place = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        if kind < 0.5:
            return super().mutate(tokens, generator)
        line = int(place * self.lines)
        fresh = self.sample(generator)[4 * line : 4 * line + 4]
        rows = [list(tokens[k : k + 4]) for k in range(0, self.length, 4)]
        if kind < 0.75:
            rows[line] = list(fresh)
        elif kind < 0.88:  # inserts a line, which pushes out the first one
            self._renumber(rows, range(line + 1), -1)
            rows = [*rows[1 : line + 1], list(fresh), *rows[line + 1 :]]
        else:  # remove: a plain line comes in at the top
            self._renumber(rows, range(line), 1)
            rows = [list(self.sample(generator)[:4]), *rows[:line], *rows[line + 1 :]]
        return self.repair([token for row in rows for token in row])

    def _renumber(self, rows: list[list[int]], lines: range, by: int) -> None:
        """Moves the references to lines in `lines` by `by`, in all rows."""
        for row in rows:
            for k in (1, 2):
                if row[k] - len(self.words.inputs) in lines:
                    row[k] = max(0, row[k] + by) if row[k] + by >= len(self.words.inputs) else 0


def _level(op: str, operands: Level) -> Level:
    """Returns the level of a line whose highest operand has this one."""
    if op in REDUCE:
        return TENSOR
    if op in AVERAGES and operands == SCALAR:
        return ELEMENT  # a state that no reduction has a part in has the shape of its parameter
    return operands
