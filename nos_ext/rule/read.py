"""Owns read, which finds the definition that a source means, be it text, a function, a rule or an expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .definition import Definition
from .errors import RuleError
from .expr import Expr
from .shorthand import define_update
from .text import parse
from .trace import trace


def read(source: str | Callable[..., Any] | Definition | Expr, name: str | None = None) -> Definition:
    """Finds the definition that `source` means.

    Args:
        source: a rule in one of the kinds that program.compile_rule describes.
        name: the name of the rule. By default it is the one that it has, or "rule".

    Raises:
        RuleError: the source is not a rule.
    """
    if isinstance(source, str):
        return parse(source, name=name)
    if isinstance(source, Definition):
        return source if name is None else source.replaced(name=name)
    if isinstance(source, Expr):
        return define_update(source, name=name)
    if callable(source):
        return trace(source, name=name)
    raise RuleError(f"source is a {type(source).__name__}; pass the text of a rule, a function, a Rule or an Expr")
