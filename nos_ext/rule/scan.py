"""Owns what is asked of a text without parsing it: how deeply it is nested, and whether its names are ASCII.

Python's parser has a stack of its own and reports its overflow as a MemoryError, as it does when memory is short; and
on deeply nested brackets it may take very long. What makes it go deeper are brackets, chains of prefix operators and of
** (`- - - x`, `a ** b ** c`), and chains of not, lambda, else and elif.
"""

from __future__ import annotations

import re
from typing import Final

MAX_NESTING: Final = 180  # Python itself refuses 200, and somewhat fewer for nested tuples

_TOKEN: Final = re.compile(
    r"""(?P<string>(?i:[bfrtu]{0,2})(?:\"{3}(?:\\.|[^\\])*?(?:\"{3}|\Z)|'{3}(?:\\.|[^\\])*?(?:'{3}|\Z)
                                      |"(?:\\.|[^"\\\r\n])*"?|'(?:\\.|[^'\\\r\n])*'?))
      |(?P<comment>\#[^\r\n]*)
      |(?P<word>[\w.]+)
      |(?P<open>[(\[{])
      |(?P<close>[)\]}])
      |(?P<power>\*\*)
      |(?P<sign>[-+~])
      |(?P<joined>\\\r?\n)
      |(?P<line>[\r\n])
      |(?P<other>[^\s\\])""",
    re.VERBOSE | re.DOTALL,
)
_NESTING_WORDS: Final = frozenset(("not", "lambda", "else", "elif"))
_OTHER_WORDS: Final = frozenset(("and", "for", "if", "in", "is", "or", "return", "yield", "await", "from"))


class _Level:
    """A _Level counts the chains within one pair of brackets."""

    __slots__ = ("chain", "words")

    def __init__(self) -> None:
        self.chain = 0  # number of prefix operators and ** in a row
        self.words = 0  # number of _NESTING_WORDS


def foreign_name(text: str) -> tuple[int, str] | None:
    """Finds the first name in `text` that is not ASCII. Returns its place and the name, or None. Python can parse the
    text."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup not in ("string", "comment") and not match[0].isascii():
            return match.start(), match[0]
    return None


def too_deep_at(text: str) -> int | None:
    """Finds where in `text` the nesting exceeds MAX_NESTING, or returns None. Strings and comments do not count."""
    levels = [_Level()]
    outer = 0  # the sum over all levels but the last
    after_operand = False  # whether a sign is an operator between two operands
    for match in _TOKEN.finditer(text):
        kind, level = match.lastgroup, levels[-1]
        if kind == "open":
            outer += 1 + level.chain + level.words
            levels.append(_Level())
            after_operand = False
        elif kind == "close":
            if len(levels) > 1:
                levels.pop()
                outer -= 1 + levels[-1].chain + levels[-1].words
            after_operand = True
        elif kind == "power" or (kind == "sign" and not after_operand):
            level.chain += 1
            after_operand = False
        elif kind == "word" and match[0] in _NESTING_WORDS:
            level.words += 1
            after_operand = False
        elif kind == "line" and len(levels) == 1:
            level.chain = 0
            after_operand = False
        elif kind in ("string", "word") and match[0] not in _OTHER_WORDS:
            after_operand = True
        elif kind in ("sign", "other", "word"):  # after another operator, the chain is complete
            level.chain = 0
            after_operand = False
        if outer + levels[-1].chain + levels[-1].words > MAX_NESTING:
            return match.start()
    return None
