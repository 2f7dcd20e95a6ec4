"""Owns read: the definition that a source of any kind means, be it text, a function, a rule or an expression."""

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
    """The definition that `source` means; program.compile_rule describes the kinds.

    Args:
        source: what a rule can be given as.
        name: name of the rule; by default the one that it has, or "rule".

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
