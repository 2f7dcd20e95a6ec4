"""Owns how the commands speak: results go to stdout, notes and progress to stderr. The errors of both streams are met
here."""

from __future__ import annotations

import codecs
import errno
import io
import json
import math
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO, cast

from ..errors import SearchError
from ..escape import line, lines

_ASCII = {"±": "+-", "…": "...", "µ": "u"}  # characters that the commands print themselves; rules are ASCII
_HANDLER = "nos_search.cli.output"
_SET_IN = "    "  # stands before the further lines of a row
_LEAST = 30  # the last column has at least so many characters beside the others


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
            # open() takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, mode), True)
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
        sys.stdout.write(f"{lines(text)}\n")  # in one piece, so that a reader who stops after it has got all of it
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


def terminal_width() -> int | None:
    """Returns how many characters a line may have, and None where no terminal would break it, as in a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as Markdown, between empty lines."""
    cells = [[line(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    first, *rest = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(["", first, "|" + "---|" * len(header), *rest, ""])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, most: int | None = None) -> str:
    """Returns plain text in columns. Numbers are set right, the last column is not padded, and each cell is one line.

    A line has at most `most` characters, by default as many as the terminal. A row of a wider table goes on in further
    lines, which are set in, and its last column is broken between words.
    """
    header, rows = [line(cell) for cell in header], [[line(cell) for cell in row] for row in rows]
    wide = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    bands = _bands(wide, most or terminal_width())
    last = len(header) - 1
    numeric = [_numeric(rows, k) for k in range(last)]

    def joined(cells: Sequence[str]) -> str:
        lines: list[str] = []
        for band, room in bands:
            padded = [cells[k].rjust(wide[k]) if numeric[k] else cells[k].ljust(wide[k]) for k in band if k < last]
            indent = _SET_IN if lines else ""
            start = indent + "".join(f"{cell}  " for cell in padded)
            ends = [""] if last not in band else [cells[last]] if room is None else _words(cells[last], room)
            lines += [f"{start if k == 0 else ' ' * len(start)}{end}".rstrip() for k, end in enumerate(ends)]
        return "\n".join(lines)

    return "\n".join(joined(row) for row in (header, *rows))


def _bands(wide: Sequence[int], most: int | None) -> list[tuple[list[int], int | None]]:
    """Returns the columns of each line of a row, with the room for the last column where that is limited."""
    last = len(wide) - 1
    if most is None or sum(wide) + 2 * last <= most:
        return [(list(range(len(wide))), None)]
    bands: list[tuple[list[int], int | None]] = []
    band: list[int] = []
    used = 0
    for k, width in enumerate(wide):
        if band and used + (min(width, _LEAST) if k == last else width) > most:
            bands.append((band, None))
            band, used = [], len(_SET_IN)
        band.append(k)
        used += width + 2
    return [*bands, (band, max(_LEAST // 2, most - (used - wide[last] - 2)))]


def _words(text: str, room: int) -> list[str]:
    """Breaks the text into lines of at most `room` characters, or of one word."""
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


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
