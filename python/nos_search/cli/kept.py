"""Owns the results that commands leave in their folder --out, beside the trainings. A result of another rule, and a
file that a user has put there, are refused before anything is trained. Another result of the same rule is replaced, and
that is said."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..escape import line
from ..rules import CompiledRule
from .output import note
from .training import emit_and_write, make_folder

_RULE: Final = "rule.txt"
_MOST_SHOWN: Final = 100  # characters of a rule


class KeptResult:
    """The result of a command for one rule: a JSON document, which names the rule and its result, and the latter in
    rule.txt. Without a folder nothing is kept."""

    def __init__(self, folder: str | None, command: str, document: str, rule: CompiledRule) -> None:
        self._folder, self._command, self._name, self._rule = folder, command, document, rule
        self._earlier: dict[str, Any] | None = None

    def make_folder(self) -> None:
        """Raises UsageError where there can be no such folder."""
        if self._folder is not None:
            make_folder(self._folder, (self._name, _RULE))

    def check(self) -> None:
        """Raises UsageError when the files there are not of this command and this rule."""
        if self._folder is None:
            return
        found = self._earlier = earlier(self._folder, self._name, self._command)
        kept = "" if found is None else f"{found.get('result')}\n"
        if found is not None and found.get("rule") != self._rule.text:
            theirs = line(found.get("rule"))[:_MOST_SHOWN]
            raise UsageError(
                f"--out {self._folder} has what {self._command} found for the rule {theirs!r}, not for "
                f"{self._rule.label[:_MOST_SHOWN]!r}; choose another folder, or move {self._name} and {_RULE} away"
            )
        path = Path(self._folder) / _RULE
        if os.path.lexists(path) and (found is None or _text(path) != kept):
            raise UsageError(
                f"--out {self._folder} has a file {_RULE} that {self._command} has not left there, or that was "
                "changed; choose another folder, or move it away"
            )

    def finish(self, document: str, result: CompiledRule, shown: str) -> None:
        """Writes the result, and prints what is shown of it. Whenever it is stopped there is a document in the folder,
        with its own rule beside it or none, and so the same command goes on."""
        if self._folder is None:
            return emit_and_write(shown, "--out", {})
        place = Path(self._folder)
        say_replaced(place / self._name, self._earlier, json.loads(document))
        if self._earlier is not None and self._earlier.get("result") != result.text:
            _remove(place / _RULE)
        written = {self._name: document, _RULE: result.text}
        emit_and_write(shown, "--out", {place / name: f"{text}\n" for name, text in written.items()})


def earlier(folder: str, name: str, command: str) -> dict[str, Any] | None:
    """Returns the document that a command left under this name, or None where there is none. Raises UsageError for
    another file of that name."""
    path = Path(folder) / name
    if not os.path.lexists(path):
        return None
    try:
        found = json.loads(_text(path) or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "format" not in found:
        raise UsageError(f"--out {path} exists and is no result of {command}; choose another folder, or move it away")
    return found


def say_replaced(path: Path, then: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Says that a document takes the place of another one."""
    if then is not None and then != now:
        note(f"note: {path} had the result of other rules or settings, which this one replaces")


def _remove(path: Path) -> None:
    """Removes a file, but no link of the user's, through which it is written. What cannot be removed cannot be replaced
    either, which is said when it is written."""
    with suppress(OSError):
        if not path.is_symlink():
            path.unlink()


def _text(path: Path) -> str | None:
    """Returns what is in a plain file of text, with its line ends."""
    try:
        return path.read_bytes().decode("utf-8") if path.is_file() else None
    except (OSError, ValueError):
        return None
