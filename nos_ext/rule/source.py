"""Owns the first step of reading rule text: from a string to Python's syntax tree, and errors with a place in it.

Nothing of the text is ever executed: `ast.parse` builds the tree, text.py walks it against an allow-list.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

from .errors import RuleError, quoted
from .scan import MAX_NESTING, foreign_name, too_deep_at

MAX_BYTES: Final = 256 * 1024  # enough for the longest possible program with a line for each value

_BYTE_ORDER_MARK: Final = "\ufeff"  # editors on Windows put it before a text
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
_INDENTED = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]+(?=[^ \t\r\n#])")


class Source:
    """A Source is the text of a rule with the statements in it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_BYTES or (not text.isascii() and len(text.encode(errors="replace")) > MAX_BYTES):
            raise RuleError(f"the text of the rule has {len(text)} characters; the limit is {MAX_BYTES} bytes")
        self.text = text = text.removeprefix(_BYTE_ORDER_MARK)
        self._lines: list[str] | None = None
        # An indented text becomes the body of an `if`, since dedenting it would shift the columns of errors.
        self._shift = 1 if text[:1] in " \t\r\n#" and _INDENTED.match(text) else 0
        self._check_characters()
        self._check_brackets()
        self.statements = self._parse()
        if not text.isascii():
            self._check_ascii_names()

    def _check_characters(self) -> None:
        """Refuses the characters that Python refuses without a place."""
        found = _UNREADABLE.search(self.text)
        if found is not None:
            code = f"U+{ord(found[0]):04X}"
            raise self._error_at_offset(f"the character {code} cannot be part of a text; remove it", found.start())

    def _check_brackets(self) -> None:
        """Refuses deeply nested brackets, on which Python's parser may take very long or fail without a place."""
        text = self.text
        if text.count("(") + text.count("[") + text.count("{") > MAX_NESTING:
            self._check_nesting()

    def _check_nesting(self) -> None:
        offset = too_deep_at(self.text)
        if offset is not None:
            raise self._error_at_offset(too_deep(), offset)

    def _parse(self) -> list[ast.stmt]:
        text = f"if 1:\n{self.text}" if self._shift else self.text
        try:
            if "\\" in text:  # Python warns about a backslash in a docstring
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module = ast.parse(text)
            else:
                module = ast.parse(text)
        except SyntaxError as error:
            raise self._syntax_error(error) from None
        except RecursionError:
            self._check_nesting()
            if len(self.text) <= 2 * MAX_NESTING:  # the text is short, so it is the caller who is deep
                raise
            raise RuleError(
                "the text of the rule has too long a sum or chain; split it over several assignments"
            ) from None
        except (MemoryError, SystemError):  # CPython's compile() raises SystemError when memory is short
            self._check_nesting()
            raise MemoryError from None
        if not self._shift:
            return module.body
        (wrapper,) = module.body[:1]
        assert isinstance(wrapper, ast.If)
        return [*wrapper.body, *wrapper.orelse, *module.body[1:]]

    def _syntax_error(self, error: SyntaxError) -> RuleError:
        message = f"syntax error: {error.msg}"
        if "integer string conversion" in error.msg:
            message = "this integer is too large for a double; write it as 1e300 or smaller"
        if self._shift:
            message = re.sub(r"(?<=on line )\d+", lambda match: str(int(match[0]) - self._shift), message)
        if error.lineno is None:
            return RuleError(message)
        line = max(1, error.lineno - self._shift)
        return RuleError(message, line=line, column=max(1, error.offset or 1), source_line=self._line(line))

    def _line(self, line: int) -> str:
        if self._lines is None:
            # Lines are counted as Python counts them; str.splitlines knows more separators.
            self._lines = re.split(r"\r\n|\r|\n", self.text)
        return self._lines[line - 1] if line <= len(self._lines) else ""

    def error(self, message: str, node: ast.AST) -> RuleError:
        """Makes a RuleError at the place of a node."""
        return self.located(RuleError(message), node)

    def located(self, error: RuleError, node: ast.AST) -> RuleError:
        """Gives `error` the place of a node, unless it has one."""
        line = getattr(node, "lineno", 1) - self._shift
        shown = self._line(line)
        column = len(shown.encode()[: getattr(node, "col_offset", 0)].decode(errors="replace")) + 1
        return error.located(line, column, shown)

    def _error_at_offset(self, message: str, offset: int) -> RuleError:
        before = re.split(r"\r\n|\r|\n", self.text[:offset])
        line = len(before)
        return RuleError(message, line=line, column=len(before[-1]) + 1, source_line=self._line(line))

    def _check_ascii_names(self) -> None:
        """Refuses names outside ASCII: Python folds look-alikes into ASCII letters (NFKC), and a reader cannot tell."""
        found = foreign_name(self.text)
        if found is not None:
            offset, name = found
            message = f"{quoted(name)} has characters outside ASCII; use ASCII letters, digits and _"
            raise self._error_at_offset(message, offset)


def too_deep() -> str:
    """Says that a text is nested too deeply, and what to do."""
    return f"nested more than {MAX_NESTING} levels deep; split it over several assignments"
