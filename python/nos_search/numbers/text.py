"""Owns how a number stands in the text of a rule, and how another one is put in its place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Final

Place = tuple[int, int, int]  # line, first byte, last byte
_LINE_END: Final = r"\r\n|\r|\n"  # as Python counts lines; str.splitlines knows more separators


def digits(value: float) -> float:
    """Returns the value with four digits."""
    return float(f"{value:.4g}")


def bare(text: str) -> str:
    """Returns the text without a byte order mark, which the language allows."""
    return text.removeprefix("\ufeff")


def tree_of(text: str) -> tuple[ast.Module, int]:
    """Returns the syntax tree of a rule's text, and how many lines too far down it has everything."""
    try:
        return ast.parse(text), 0
    except IndentationError:  # the language allows a text that is indented as a whole
        return ast.parse(f"if 1:\n{text}"), 1


def with_numbers(text: str, numbers: Iterable[tuple[Place, float]]) -> str:
    """Returns the text with other numbers in these places. A number has twelve digits, so that what is missing of
    another one to 1 is not spelled with seventeen."""
    lines = [line.encode() for line in re.split(_LINE_END, text)]
    for (line, first, last), value in sorted(numbers, reverse=True):
        shown = repr(float(f"{value:.12g}")).encode()
        lines[line - 1] = lines[line - 1][:first] + shown + lines[line - 1][last:]
    return b"\n".join(lines).decode()
