"""Owns to_text, which writes a rule as the source of a function."""

from __future__ import annotations

from ..definition import RESERVED, Definition
from .layout import Layout
from .text import TextFormatter, number_text


def to_text(rule: Definition) -> str:
    """Writes the source of a function that compiles to the same program as the rule."""
    layout = Layout(rule.simplified, rule.state_names, RESERVED.union(rule.hyperparameters))
    arguments = ["p", "g", *rule.state_names, "*", "lr"]
    arguments += [f"{name}={number_text(value)}" for name, value in rule.hyperparameters.items() if value is not None]
    texts, sources = TextFormatter().write(layout.order, layout.names)
    lines = [
        f"def {rule.name}({', '.join(arguments)}):",
        *[f"    {layout.names[node]} = {sources[node]}" for node in layout.statements],
        f"    return {', '.join(texts[x] for x in rule.simplified)}",
    ]
    return "\n".join(lines) + "\n"
