"""Owns the list of spaces by kind, and the way from a stored configuration to a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError, choose
from .base import SearchSpace
from .program import ProgramSpace
from .space import Space

SPACES = {Space.kind: "the paper's groups of operands and functions", ProgramSpace.kind: "straight-line programs"}


def make_space(config: Mapping[str, Any]) -> SearchSpace:
    """The space of a configuration; runs from before there was a second kind have none stored."""
    kind = config.get("kind", Space.kind)
    if kind == Space.kind:
        return Space.from_config(config)
    if kind == ProgramSpace.kind:
        if "lines" not in config:
            raise UsageError("space 'program' needs its number of lines")
        return ProgramSpace(lines=int(config["lines"]))
    raise choose("--space", str(kind), tuple(SPACES))
