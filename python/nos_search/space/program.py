"""Owns the space `program`: straight-line programs that choose their own moving averages and constants.

It has what the space of the paper lacks and the search behind Lion (Chen et al. 2023) had: averages with any decay of
any earlier value, read before or after their update, and numbers. A program has a fixed number of lines of four
predictions (op, a, b, c), which mean x_k = op(a, b; c): a and b are g, w, 1 or earlier lines, and c is a number. The
last line is the update u of `p - lr * u`. Lines that it does not need are dead and leave no trace in the rule. What an
op does not take is fixed to index 0, so every program has one spelling of each line.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from ..errors import UsageError
from ..known import OF_PROGRAMS, RULES
from .base import Position, SearchSpace, Tokens
from .vocabulary import Token

MIN_LINES, MAX_LINES = 2, 7  # each line may be an average, and of the 8 states of a rule the gates need one
_SET = ("program",)

# {a} and {b} stand for operands, {c} for the number. Append new rows at the end: order and names are in stored runs.
OPS: tuple[Token, ...] = (
    Token("ema", "{c} * {s} + {d} * {a}", _SET, "moving average of a with decay c, after its update"),
    Token("ema_old", "{s}", _SET, "the same before its update, as Lion reads its momentum"),
    Token("ema_hat", "({c} * {s} + {d} * {a}) / (1 - {c} ** t)", _SET, "moving average with Adam's bias correction"),
    Token("lerp", "{c} * {a} + {d} * {b}", _SET, "c a + (1 - c) b"),
    Token("add", "{a} + {b}", _SET, "sum"),
    Token("sub", "{a} - {b}", _SET, "difference"),
    Token("mul", "{a} * {b}", _SET, "product"),
    Token("div", "{a} / ({b} + 1e-08)", _SET, "quotient a / (b + 1e-8)"),
    Token("min", "min({a}, {b})", _SET, "the lesser"),
    Token("max", "max({a}, {b})", _SET, "the greater"),
    Token("axpy", "{a} + {c} * {b}", _SET, "a + c b"),
    Token("scale", "{c} * {a}", _SET, "c a"),
    Token("clip", "clip({a}, {c})", _SET, "clip to [-c, c]"),
    Token("neg", "-{a}", _SET, "negation"),
    Token("abs", "abs({a})", _SET, "|a|"),
    Token("sign", "sign({a})", _SET, "sign"),
    Token("square", "{a} ** 2", _SET, "a^2"),
    Token("sqrt", "sqrt(abs({a}))", _SET, "square root of |a|"),
    Token("exp", "exp({a})", _SET, "e to the power a"),
    Token("log", "log(abs({a}))", _SET, "log|a|"),
    Token("tanh", "tanh({a})", _SET, "hyperbolic tangent"),
)
CONSTANTS: tuple[Token, ...] = tuple(
    Token(text, text, _SET, "number")
    for text in ("0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.999", "0.0001", "0.001", "0.01", "0.1", "2", "10")
)
_DECAYS = 7  # an average may take one of the first so many CONSTANTS
_AVERAGES = ("ema", "ema_old", "ema_hat")
_INPUTS: tuple[Token, ...] = (
    Token("g", "g", _SET, "gradient", gradient=True),
    Token("w", "p", _SET, "parameter"),
    Token("1", "1", _SET, "constant"),
)
_TAKES_B = frozenset(token.name for token in OPS if "{b}" in token.text)
_TAKES_C = frozenset(token.name for token in OPS if "{c}" in token.text) | {"ema_old"}
_SYMMETRIC_DEAD = frozenset(("sub", "div", "min", "max", "lerp"))  # for these, op(a, a) is a or a number


class ProgramSpace(SearchSpace):
    """A space of programs that have `lines` lines. Raises UsageError for a number of lines outside 2..7."""

    kind: ClassVar[str] = "program"
    block = 4

    def __init__(self, *, lines: int = 5) -> None:
        if not MIN_LINES <= lines <= MAX_LINES:
            raise UsageError(f"lines {lines} is outside {MIN_LINES}..{MAX_LINES}")
        super().__init__()
        self.lines = lines
        positions = []
        for line in range(lines):
            operands = _INPUTS + tuple(Token(f"x{k + 1}", "", (), f"line {k + 1}") for k in range(line))
            positions.append(Position(f"op.{line + 1}", "op", line, OPS))
            positions += [Position(f"{name}.{line + 1}", "operand", line, operands) for name in ("a", "b")]
            positions.append(Position(f"c.{line + 1}", "constant", line, CONSTANTS))
        self.positions = tuple(positions)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "lines": self.lines}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ProgramSpace:
        if "lines" not in config:
            raise UsageError("space 'program' needs its number of lines")
        return cls(lines=int(config["lines"]))

    # --- masks -----------------------------------------------------------------------------------------------------

    def mask_key(self, prefix: Sequence[int]) -> Hashable:
        where = len(prefix)
        return (where, *prefix[where - where % 4 :])

    def make_mask(self, prefix: Sequence[int]) -> list[bool]:
        where = len(prefix)
        tokens = self.positions[where].tokens
        field = where % 4
        if field == 0:
            return [True] * len(tokens)
        op = OPS[prefix[where - field]].name
        only_first = [True] + [False] * (len(tokens) - 1)
        if field == 1:  # the field of a: a function of the constant 1 alone would be a constant
            return [op in _TAKES_B or token.name != "1" for token in tokens]
        if field == 2:
            if op not in _TAKES_B:
                return only_first
            return [op not in _SYMMETRIC_DEAD or index != prefix[where - 1] for index in range(len(tokens))]
        if op not in _TAKES_C:
            return only_first
        return [op not in (*_AVERAGES, "lerp") or index < _DECAYS for index in range(len(tokens))]

    def size(self, *, masked: bool = False) -> int:
        """Counts the strings, and among them those that are dead in part."""
        total = 1
        for line in range(self.lines):
            operands = len(_INPUTS) + line
            if not masked:
                total *= len(OPS) * operands**2 * len(CONSTANTS)
                continue
            count = 0
            for token in OPS:
                a = operands - (token.name not in _TAKES_B)
                b = operands - (token.name in _SYMMETRIC_DEAD) if token.name in _TAKES_B else 1
                c = 1
                if token.name in _TAKES_C:
                    c = _DECAYS if token.name in (*_AVERAGES, "lerp") else len(CONSTANTS)
                count += a * b * c
            total *= count
        return total

    # --- tokens and text -------------------------------------------------------------------------------------------

    def _lines(self, tokens: Sequence[int]) -> list[tuple[str, int, int, int]]:
        return [(OPS[tokens[k]].name, *tokens[k + 1 : k + 4]) for k in range(0, self.length, 4)]  # type: ignore[misc]

    def _wanted(self, tokens: Sequence[int]) -> list[bool]:
        """Tells for each line whether the last one needs it."""
        wanted = [False] * self.lines
        wanted[-1] = True
        for k, (op, a, b, _) in reversed(list(enumerate(self._lines(tokens)))):
            if wanted[k]:
                for operand in (a, b) if op in _TAKES_B else (a,):
                    if operand >= len(_INPUTS):
                        wanted[operand - len(_INPUTS)] = True
        return wanted

    def live(self, tokens: Sequence[int]) -> list[bool]:
        result: list[bool] = []
        for (op, *_), wanted in zip(self._lines(tokens), self._wanted(tokens), strict=True):
            result += [wanted, wanted, wanted and op in _TAKES_B, wanted and op in _TAKES_C]
        return result

    def text(self, tokens: Sequence[int]) -> str:
        """Returns a function on one line with the live lines only. Each average has a state of its own, which is named
        after its line."""
        names = [token.text for token in _INPUTS]
        states, body, updates = [], [], []
        for k, ((op, a, b, c), wanted) in enumerate(zip(self._lines(tokens), self._wanted(tokens), strict=True), 1):
            names.append(f"x{k}")
            if not wanted:
                continue
            number = CONSTANTS[c].text
            parts = {"a": names[a], "b": names[b], "c": number, "s": f"m{k}", "d": f"{1 - float(number):.12g}"}
            if op in _AVERAGES:
                states.append(f"m{k}")
                updates.append(f"n{k}" if op != "ema_old" else OPS[0].text.format(**parts))
            if op == "ema_old":
                names[-1] = f"m{k}"  # the line is read under the name of its state
            elif op == "ema_hat":
                body += [f"n{k} = {OPS[0].text.format(**parts)}", f"x{k} = n{k} / (1 - {number} ** t)"]
            elif op == "ema":
                names[-1] = f"n{k}"
                body.append(f"n{k} = {OPS[0].text.format(**parts)}")
            else:
                text = next(token.text for token in OPS if token.name == op)
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
        tokens: list[int] = [next(k for k, op in enumerate(OPS) if op.name == "sign"), 0, 0, 0] * spare
        operands = {token.name: k for k, token in enumerate(_INPUTS)}
        constants = {token.name: k for k, token in enumerate(CONSTANTS)}
        for k, (op, a, *rest) in enumerate(lines):
            index = next((i for i, token in enumerate(OPS) if token.name == op), None)
            if index is None:
                raise UsageError(f"assemble: line {k + 1}: there is no op {op!r}")
            b = operands[rest.pop(0)] if op in _TAKES_B else 0
            c = constants[rest.pop(0)] if op in _TAKES_C else 0
            tokens += [index, operands[a], b, c]
            operands[f"x{k + 1}"] = len(_INPUTS) + spare + k
        return self.check(tokens)

    def known(self) -> Mapping[str, Tokens]:
        lines = {name: RULES[name].lines for name in OF_PROGRAMS}
        return {name: self.assemble(rows) for name, rows in lines.items() if len(rows) <= self.lines}

    # --- changes ---------------------------------------------------------------------------------------------------

    def mutate(self, tokens: Tokens, generator: Any) -> Tokens:
        """Half of the time takes another token at one place; else makes a line anew, puts one in, or takes one out."""
        import torch

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
            for row in rows[:line]:
                self._shift(row, 1)
            for row in rows[line + 1 :]:
                for k in (1, 2):
                    if len(_INPUTS) <= row[k] < len(_INPUTS) + line:
                        row[k] += 1
            rows = [list(self.sample(generator)[:4]), *rows[:line], *rows[line + 1 :]]
        return self.repair([token for row in rows for token in row])

    def _renumber(self, rows: list[list[int]], lines: range, by: int) -> None:
        """Moves the references to lines in `lines` by `by`, in all rows."""
        for row in rows:
            for k in (1, 2):
                if row[k] - len(_INPUTS) in lines:
                    row[k] = max(0, row[k] + by) if row[k] + by >= len(_INPUTS) else 0

    def _shift(self, row: list[int], by: int) -> None:
        for k in (1, 2):
            if row[k] >= len(_INPUTS):
                row[k] += by
