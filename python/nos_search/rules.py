"""Owns what the search asks of the engine: it compiles rule text and names its canonical form.

Everything here goes through the public names of nos_ext.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nos_ext
from nos_ext.optim import library
from nos_ext.rule.canonical import canonical_key

from .errors import StoreError, UsageError
from .escape import line

_SHOWN = 200  # characters of a rule in a message


@dataclass(frozen=True)
class CompiledRule:
    """A rule that is compiled. `text` is as the user or the space wrote it; `key` is equal for rules that are equal by
    algebra."""

    text: str
    program: nos_ext.Program
    key: str

    @property
    def label(self) -> str:
        """Returns one line for tables: the text, or the name of a rule that was given as a function."""
        return line(self.program.name if "\n" in self.text.strip() else self.text.strip())

    @property
    def is_update(self) -> bool:
        """Tells whether the text is the update u of `p - lr * u`, and not a function or the name of a library rule."""
        text = self.text.strip()
        return text not in library.names() and "\n" not in text and not text.startswith("def ")


def compile_rule(text: str, *, matrices: bool = False) -> CompiledRule:
    """Compiles rule text, or the name of a rule of nos_ext.optim.library.

    With `matrices` rules may orthogonalize, and the library's muon takes steps that are as long as AdamW's, so that one
    learning rate fits it and the rule beside it (train/matrices.py).

    Raises nos_ext.RuleError (a ValueError whose message shows the place) for text that is not a rule.
    """
    source: str | nos_ext.Rule = library.get(text) if text in library.names() else text
    if matrices and text == "muon":
        source = library.get(text).to_text().replace("'original'", "'match_rms_adamw', dtype='float32'")
    program = nos_ext.compile_rule(source)
    if isinstance(program, nos_ext.MatrixProgram):
        if matrices:
            return CompiledRule(text, program, program.fingerprint)
        raise nos_ext.RuleError(
            f"rule '{program.name}' has orthogonalize, which a search cannot score: its trainings run one program over "
            "all parameters; train it with nos_ext.optim.RuleOptimizer"
        )
    return CompiledRule(text, program, canonical_key(program))


def parse_rule_argument(text: str, *, matrices: bool = False) -> CompiledRule:
    """Does the same for an argument of the command line. Raises UsageError instead of RuleError, and keeps its line and
    caret."""
    try:
        return compile_rule(text, matrices=matrices)
    except nos_ext.RuleError as error:
        raise UsageError(f"rule {text[:_SHOWN]!r}{'...' * (len(text) > _SHOWN)} is not valid: {error}") from None


def parse_stored_rule(text: str, folder: str | Path, trial: int) -> CompiledRule:
    """Returns the rule of a run's trial. Raises StoreError, which is one short line, for text that is no rule.

    A rule that consists of one operand, such as ``adam``, gets parentheses: alone it would name the library's rule,
    which is another one.
    """
    try:
        return compile_rule(f"({text})" if text in library.names() else text)
    except nos_ext.RuleError as error:
        raise StoreError(
            f"run folder {folder} is damaged: the rule of trial {trial} is none ({str(error).splitlines()[0]}); "
            "restore it from a copy"
        ) from None
