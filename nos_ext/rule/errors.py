"""Owns RuleError, the one exception of the rule language. It has a place in the text where there is one."""

from __future__ import annotations

_NAME = 80  # a longer name is cut in messages, in characters
_CONTEXT = 60  # characters of a long source line that are shown on each side of the caret


class RuleError(ValueError):
    """Raised for a rule that cannot be compiled.

    The text of the error says what is wrong and what to do. For rules given as text, `line` and `column` (both from 1,
    columns in characters) and `source_line` say where; they are None otherwise.
    """

    message: str
    line: int | None
    column: int | None
    source_line: str | None

    def __init__(
        self, message: str, *, line: int | None = None, column: int | None = None, source_line: str | None = None
    ) -> None:
        self.message = message
        self.line = line
        self.column = column
        self.source_line = source_line
        super().__init__(_render(message, line, column, source_line))

    def located(self, line: int, column: int, source_line: str) -> RuleError:
        """Returns the same error with a place. An error that has one already keeps it."""
        if self.line is not None:
            return self
        return RuleError(self.message, line=line, column=column, source_line=source_line)


def quoted(name: str) -> str:
    """Writes a name for messages, in quotes, and cut where it is long."""
    return f"'{name}'" if len(name) <= _NAME else f"'{name[:20]}...' ({len(name)} characters)"


def _render(message: str, line: int | None, column: int | None, source_line: str | None) -> str:
    if line is None or column is None:
        return message
    out = f"line {line}, column {column}: {message}"
    if source_line is None:
        return out
    start = max(0, column - 1 - _CONTEXT)
    shown = source_line[start : column - 1 + _CONTEXT]
    # tabs stay tabs, so that the caret stands under its character whatever the width of a tab
    padding = "".join("\t" if c == "\t" else " " for c in source_line[start : column - 1])
    # what does not print, or moves a terminal's cursor, is shown as one character that does not
    shown = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in shown)
    return f"{out}\n    {shown}\n    {padding}^"
