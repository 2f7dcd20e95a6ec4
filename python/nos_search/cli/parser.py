"""Owns how a command line is read: words may stand on both sides of options, and a rule may begin with a minus."""

from __future__ import annotations

import argparse
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from .output import emit, note

# Stands before words that are no options, whatever they look like. No argument of a process can contain it.
_GUARD = "\0"
_PACKAGES = ("torch", "numpy")
_PLACES: dict[Any, str] = {"DIR": "folder", "FOLDER": "folder", "FILE": "file"}  # by metavar


class Parser(argparse.ArgumentParser):
    """This is an argparse parser whose help goes through `emit` and whose errors go through `note`, as all output
    does."""

    _given: Sequence[str] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.color = False  # from Python 3.14 on argparse colours its help; `emit` lets no escape sequence through

    def parse_mixed(self, argv: Sequence[str]) -> argparse.Namespace:
        """Reads options and words in any order. What comes after `--` are words, even if they begin with a minus.

        argparse alone refuses words on both sides of an option, and drops or keeps the `--` from release to release.
        """
        self._given = argv
        cut = argv.index("--") if "--" in argv else len(argv)
        found = self.parse_intermixed_args([*argv[:cut], *(_GUARD + word for word in argv[cut + 1 :])])
        for name, value in vars(found).items():
            if isinstance(value, str):
                setattr(found, name, value.removeprefix(_GUARD))
            elif isinstance(value, list):
                setattr(found, name, [word.removeprefix(_GUARD) for word in value])
        self._check_places(found)
        return found

    def _check_places(self, found: argparse.Namespace) -> None:
        """Leaves by SystemExit when a file or folder has an empty name, as an unset variable of a shell gives it: that
        would mean the folder of the moment here, and the default there."""
        for action in self._actions:
            if action.metavar in _PLACES and getattr(found, action.dest, None) == "":
                option = action.option_strings[0] if action.option_strings else action.metavar
                note(f"{self.prog}: {option} is empty; name a {_PLACES[action.metavar]}")
                raise SystemExit(2)

    def print_help(self, file: Any = None) -> None:
        emit(self.format_help().rstrip("\n"))

    def error(self, message: str) -> NoReturn:
        """Says on stderr what is wrong, and how to give what begins with a minus if that may be the reason."""
        note(self.format_usage().rstrip("\n"))
        note(f"{self.prog}: error: {message.replace(_GUARD, '')}{self._hint(message)}")
        raise SystemExit(2)

    def _hint(self, message: str) -> str:
        if "expected one argument" in message:
            option = message.removeprefix("argument ").split(":")[0]
            return f"; a value that begins with a minus is given as {option}=-..."
        short = [word for word in self._given if word[:1] == "-" and word[:2] not in ("-", "--")]
        odd = next((word for word in short if word in message or "required" in message), None)
        if odd is None or "RULE" not in self.format_usage():
            return ""
        return f"; a rule that begins with a minus goes after --, at the end: {self.prog} ... -- {shlex.quote(odd)}"


class Version(argparse.Action):
    """The option --version prints what a result depends on, as far as that can be had without importing it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from nos_ext import __version__, build_info

        rows = {"nos_ext": __version__, **{name: _installed(name) for name in _PACKAGES}}
        rows |= {"python": platform.python_version(), "machine": platform.machine()}
        rows |= {"isa": str(build_info().get("cpu", {}).get("isa", ""))}
        emit("\n".join([f"nos-search {__version__}", *(f"  {name} {value}" for name, value in rows.items() if value)]))
        raise SystemExit(0)


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
