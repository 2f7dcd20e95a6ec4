"""``python -m nos_search.cli.docgen`` writes what docs/reference has of nos_search; ``--check`` tells what is old.

One page has every option of every command, as the parsers have them, and one the names of the package.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Final

from nos_ext.docgen import api_page, main

from ..bench import BENCHES
from .arguments import COMMANDS
from .bench import parser_of
from .parser import Parser

_NOTE: Final = "<!-- Written by `python -m nos_search.cli.docgen`. Do not edit. -->"
_LONGEST: Final = 80  # characters of an option with its choices
_OWN: Final = ("positional arguments", "options")  # argparse's names for what is in no group


def pages() -> dict[str, str]:
    """Makes every page. The keys are file names."""
    return {"cli.md": cli_page(), "nos_search.md": api_page("nos_search", _NOTE)}


def cli_page() -> str:
    parts = [
        f"{_NOTE}\n# Options of nos-search\n\nEvery command with all that it takes, as `--help` prints it. "
        "[The command nos-search](../howto/command_line.md) says what they have in common.\n"
    ]
    for name, (about, add) in COMMANDS.items():
        parser = Parser(prog=f"nos-search {name}", description=about)
        add(parser)
        parts.append(f"## {name}\n\n{_sentence(about)}\n\n{_arguments(parser)}")
    for name, (_, about) in BENCHES.items():
        parts.append(f"## bench {name}\n\n{_sentence(about)}\n\n{_arguments(parser_of(name))}")
    return "\n".join(parts)


def _arguments(parser: argparse.ArgumentParser) -> str:
    out = [f"```\n{_usage(parser)}\n```\n"]
    for group in parser._action_groups:
        items = [line for action in group._group_actions for line in _item(parser, action)]
        title = "" if group.title in _OWN else f"{_sentence(str(group.title), end=':')}\n\n"
        if items:
            out.append(title + "\n".join(items) + "\n")
    return "\n".join(out)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Writes what must be given. argparse's own usage has every option, in lines that differ between releases."""
    needed = [_option(action) for action in parser._actions if action.option_strings and action.required]
    words = [_words(action) for action in parser._actions if not action.option_strings]
    return " ".join([parser.prog, "[OPTIONS]", *needed, *words])


def _item(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
        return
    what = _option(action) if action.option_strings else _words(action)
    about = _plain(parser._get_formatter()._expand_help(action) if action.help else "")
    if len(what) > _LONGEST:
        name, _, choices = what.partition(" ")
        what = f"{name} NAME"
        about += "; NAME is one of " + ", ".join(f"`{choice}`" for choice in choices.split("|"))
    yield f"- `{what}`" + (f": {about}" if about else "")


def _option(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    return name if action.nargs == 0 else f"{name} {action.metavar or action.dest.upper()}"


def _words(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    forms: dict[int | str | None, str] = {"+": f"{name} ...", "*": f"[{name} ...]", "?": f"[{name}]"}
    return forms.get(action.nargs, name)


def _sentence(text: str, end: str = ".") -> str:
    return _plain(text[:1].upper() + text[1:]) + end


def _plain(text: str) -> str:
    escaped = re.sub(r"([*_\[\]<>|`])", r"\\\1", text)
    return re.sub(r"docs/([\w/\\]+\.md)", lambda found: f"[docs/{found[1]}](../{found[1]})".replace("\\", ""), escaped)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], pages(), "nos_search.cli.docgen"))
