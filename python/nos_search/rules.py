"""Owns what the search asks of the engine: it compiles rule text and names its canonical form.

Everything here goes through the public names of nos_ext.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.canonical import canonical_key

from .errors import StoreError, UsageError
from .escape import line

_SHOWN = 200  # characters of a rule in a message
_FILE, _STDIN = "@", "-"  # stand before the name of a file, and for the standard input, in the place of a rule
_MOST_READ = 1 << 20  # bytes
LONGEST = 65_536  # characters of a rule in a run's file
_FOREIGN = re.compile(r"[^A-Za-z0-9_ \n.,:;=()*+\-/%^<>&|!]")  # to rules


@dataclass(frozen=True)
class CompiledRule:
    """A rule that is compiled. `text` is as the user or the space wrote it; `key` is equal for rules that are equal by
    algebra. `name` is what `distinct` calls it, where it was one of several."""

    text: str
    program: nos_ext.Program
    key: str
    name: str = ""

    @property
    def label(self) -> str:
        """Returns one line for tables: the text, or the name of a rule that was given as a function."""
        return self.name or line(self.program.name if "\n" in self.text.strip() else self.text.strip())

    @property
    def is_update(self) -> bool:
        """Tells whether the text is the update u of `p - lr * u`, and not a function or the name of a library rule."""
        text = self.text.strip()
        return text not in library.names() and "\n" not in text and not text.startswith("def ")


def distinct(rules: Iterable[CompiledRule]) -> list[CompiledRule]:
    """Returns the rules, each text once, with labels that differ: of functions with one name the second is called
    "name (2)"."""
    found: dict[str, CompiledRule] = {}
    for rule in {rule.text: rule for rule in rules}.values():
        names = chain([rule.label], (f"{rule.label} ({k})" for k in count(2)))
        name = next(name for name in names if name not in found)
        found[name] = replace(rule, name=name)
    return list(found.values())


def compile_rule(text: str, *, matrices: bool = False) -> CompiledRule:
    """Compiles rule text, or the name of a rule of nos_ext.optim.library.

    With `matrices` rules may orthogonalize, and the library's muon takes steps that are as long as AdamW's, so that one
    learning rate fits it and the rule beside it (train/matrices.py).

    Raises nos_ext.RuleError (a ValueError whose message shows the place) for text that is not a rule.
    """
    program = program_of(text, matrices=matrices)
    matrix = isinstance(program, nos_ext.MatrixProgram)
    return CompiledRule(text, program, program.fingerprint if matrix else canonical_key(program))


def program_of(text: str, *, matrices: bool = False) -> nos_ext.Program:
    """Does the same without the canonical form, which takes as long as all the rest."""
    source: str | nos_ext.Rule = library.get(text) if text in library.names() else text
    if matrices and text == "muon":
        source = library.get(text).to_text().replace("'original'", "'match_rms_adamw', dtype='float32'")
    program = nos_ext.compile_rule(source)
    if isinstance(program, nos_ext.MatrixProgram) and not matrices:
        raise nos_ext.RuleError(
            f"rule '{program.name}' has orthogonalize, which a search cannot score: its trainings run one program over "
            "all parameters; train it with nos_ext.optim.RuleOptimizer"
        )
    return program


def is_plain(text: str) -> bool:
    """Tells whether text has only the characters that rules are made of, and not too many: a run's file holds no
    other. Comments, docstrings and tabs are no part of it."""
    return len(text) <= LONGEST and _FOREIGN.search(text) is None


def plain(text: str) -> str:
    """Returns any text, which need not be a rule, in these characters: `!` stands for those that are foreign."""
    return _FOREIGN.sub("!", text)[:LONGEST]


def parse_rule_argument(text: str, *, matrices: bool = False) -> CompiledRule:
    """Does the same for an argument of the command line, which may also be `@FILE` for the rule in a file, or `-` for
    the rule that comes by the standard input. That is read to its end, so one rule of a command may come by it.

    Raises UsageError, which names the file, for what cannot be read, and instead of RuleError, whose line and caret it
    keeps. `matrices` is for `compile_rule`.
    """
    shown = f"rule {text[:_SHOWN]!r}{'...' * (len(text) > _SHOWN)}"
    if text == _STDIN:
        shown = "the rule on standard input"
        text = _read(0, shown, "pipe one in, or name it without -")
    elif text.startswith(_FILE):
        shown = f"the rule in {line(text.removeprefix(_FILE)) or 'a file without a name'}"
        text = _read(text.removeprefix(_FILE), shown, "@ stands before the name of a file")
    words = [word for row in text.splitlines() if (word := row.partition("#")[0].strip())]
    if len(words) == 1 and words[0] in library.names():
        (text,) = words  # "adam ", or with a comment: the library's rule, and not the operand
    elif "\n" not in text.strip():
        text = text.strip()
    try:
        return compile_rule(text, matrices=matrices)
    except nos_ext.RuleError as error:
        raise UsageError(f"{shown} is not valid: {error}") from None


def _read(source: str | int, shown: str, remedy: str) -> str:
    """Returns what is in a file, or comes by a descriptor that stays open."""
    try:
        with open(source, "rb", closefd=isinstance(source, str)) as file:
            data = file.read(_MOST_READ + 1)
        if len(data) <= _MOST_READ:
            return data.decode("utf-8-sig").strip("\r\n")
        why = f"it has more than {_MOST_READ} bytes"
    except UnicodeDecodeError:
        why = "it is no text in UTF-8"
    except (OSError, ValueError) as error:
        why = str(error.strerror if isinstance(error, OSError) else error)
    raise UsageError(f"{shown} cannot be read: {why}; {remedy}")


def as_argument(text: str) -> str:
    """Returns the text of a run's rule as an argument of the command line. A rule that consists of one operand, such as
    ``adam``, gets parentheses: alone it would name the library's rule, which is another one."""
    return f"({text})" if text in library.names() else text


def parse_stored_rule(text: str, folder: str | Path, trial: int) -> CompiledRule:
    """Returns the rule of a run's trial. Raises StoreError, which is one short line, for text that is no rule."""
    try:
        return compile_rule(as_argument(text))
    except nos_ext.RuleError as error:
        raise StoreError(
            f"run folder {folder} is damaged: the rule of trial {trial} is none ({str(error).splitlines()[0]}); "
            "restore it from a copy"
        ) from None
