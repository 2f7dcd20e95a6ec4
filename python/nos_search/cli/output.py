"""Owns how the commands speak: results go to stdout, notes and progress to stderr. The errors of both streams are met
here."""

from __future__ import annotations

import codecs
import errno
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, TextIO, cast

from ..errors import SearchError
from ..escape import line, lines

_ASCII = {"±": "+-", "…": "...", "µ": "u"}  # of what the commands print themselves; rules are ASCII
_HANDLER = "nos_search.cli.output"


class ReaderGoneError(Exception):
    """Whoever read stdout has gone away, as ``head`` does, and there is nobody left to tell."""


# --- the streams -----------------------------------------------------------------------------------------------------


def settle_streams() -> None:
    """Makes the three standard streams safe to use, however the command was started.

    A stream that was closed is opened on the null device. Else the run's database would get its number, and whatever a
    library prints to "stdout" would be written into the database. Printing to a stdout that was closed stays an error.
    Characters that an encoding lacks are replaced, because a result must not be lost for want of a plus-minus sign.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest free number is this one
    if cast("TextIO | None", sys.stdout) is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as the process
    if cast("TextIO | None", sys.stderr) is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error(_HANDLER, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    shown = (_ASCII.get(c, c.encode("ascii", "backslashreplace").decode("ascii")) for c in missing)
    return "".join(shown), error.end


class Quiet:
    """This is a text stream for progress. What cannot be written to it, because a disk is full or a terminal was
    closed, is dropped: a search must not end over it. Everything but writing is done by the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def progress() -> TextIO:
    """Returns stderr for notes and progress."""
    return cast(TextIO, Quiet(sys.stderr))


def note(text: str) -> None:
    """Prints a note on stderr. Of what is not printable, it keeps only line ends."""
    stream = progress()
    stream.write(f"{lines(text)}\n")
    stream.flush()


def emit(text: str, *, keep: bool = False) -> None:
    """Prints a result on stdout, all of it before this returns.

    Raises SearchError when stdout cannot be written. With `keep`, which is for what took long to get, the result is
    first saved in the folder for temporary files, and the message says where. Raises ReaderGoneError when the reader of
    a pipe went away.
    """
    try:
        sys.stdout.write(f"{lines(text)}\n")  # in one piece: a reader that takes all of it has not gone away
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        raise ReaderGoneError from None
    except (OSError, ValueError) as error:  # ValueError: a stream object that is closed
        _abandon_stdout()
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) and error.errno == errno.EBADF:
            reason = "it is closed"
        raise SearchError(f"stdout cannot be written: {reason}" + (_rescued(text) if keep else "")) from None


def _rescued(text: str) -> str:
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="nos-search-", delete=False) as file:
            file.write(f"{lines(text)}\n")
        return f"; the result is in {file.name}"
    except OSError as error:
        return f", nor could the result be saved elsewhere ({error.strerror})"


def _abandon_stdout() -> None:
    """Points stdout at the null device. Python flushes it once more when it ends, and what is left in it must not fail
    again."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


# --- forms of results ------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns plain text in columns. Numbers are set right, the last column is not padded, and each cell is one
    line."""
    header, rows = [line(cell) for cell in header], [[line(cell) for cell in row] for row in rows]
    wide = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]

    def joined(cells: Sequence[str]) -> str:
        padded = [
            cell if k == len(cells) - 1 else cell.rjust(wide[k]) if _numeric(rows, k) else cell.ljust(wide[k])
            for k, cell in enumerate(cells)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(joined(row) for row in (header, *rows))


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column][:1].isdigit() or row[column][:1] in "-." for row in rows)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def as_json(data: Any) -> str:
    """Returns indented JSON in ASCII. JSON has no word for NaN and infinities, so they become null."""
    return json.dumps(_finite(data), indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
