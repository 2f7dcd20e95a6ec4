"""Owns the errors that a user can cause, and the exit status that each one means on the command line.

Anything else that is raised is a defect of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib

from .escape import line


class SearchError(Exception):
    """A run cannot go on for a reason that the user can act on. The message says what is wrong, where, and the remedy;
    the exit status is 1."""

    exit_status = 1


class UsageError(SearchError, ValueError):
    """An argument has a value that cannot be used. The message names the argument, the value and the remedy; the exit
    status is 2."""

    exit_status = 2


class StoreError(SearchError):
    """A run folder is foreign, damaged, too new, read-only, in use by another process, or was removed while it was in
    use, or its disk is full. The message is one line that ends in the remedy, whatever the names and values in it hold;
    the exit status is 1."""

    def __init__(self, message: str) -> None:
        super().__init__(line(message))


def choose(argument: str, value: str, known: tuple[str, ...]) -> UsageError:
    """Returns the error for a name that is not in a table. It says the argument, the value, every name that would
    do, and which of them may have been meant."""
    close = difflib.get_close_matches(value.lower(), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return UsageError(f"{argument} {value!r} is not known; choose one of: {', '.join(known)}{meant}")
