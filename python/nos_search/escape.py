"""Owns how text of unknown origin is made harmless in each format that the commands write.

Run folders travel: a rule, a reason or a setting read from one may hold anything, and so may a file name. Whatever goes
to a terminal, a page, a drawing, a table or a source file goes through one of these functions on its way.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from html import escape

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def line(text: object) -> str:
    """Returns the text as one line of printable characters, for terminals, logs and comments in source.

    Everything else that it holds (line ends of any kind, escape sequences, marks that turn the direction of writing,
    broken Unicode) is shown as Python shows it in a string: a line end becomes a backslash and an n.
    """
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_shown, plain))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def lines(text: object) -> str:
    """Does the same for text of several lines, set apart by newlines, such as a message with a caret under the
    place."""
    return "\n".join(map(line, str(text).split("\n")))


def markup(text: object) -> str:
    """Returns the text for the content or a quoted attribute of HTML, SVG or MathML."""
    return escape(lines(text))


def cell(value: object) -> object:
    """Returns the value for a cell of a CSV table. Numbers stay numbers, None becomes an empty cell, and text becomes
    one line.

    Text that a spreadsheet would take for a formula, such as the rule ``-g``, gets an apostrophe in front.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    text = line(value)
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])  # there are wide forms of the signs, too
    return f"'{text}" if first in _FORMULA else text


def shell(word: object) -> str:
    """Returns a file name as one word of a POSIX shell's command line. It is on one line and is never read as an
    option."""
    text = os.fspath(word) if isinstance(word, os.PathLike) else str(word)
    if text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    safe = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(safe)}'"
