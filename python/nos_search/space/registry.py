"""Owns the list of spaces by kind, and the way from a stored configuration to a space.

A new space is one file, one row here, and one case of `nos_search.testing.space.SpaceCase` in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import choose
from .base import SearchSpace
from .lion import LionSpace
from .program import ProgramSpace
from .space import Space
from .text import TextSpace

SPACES: dict[str, type[SearchSpace]] = {cls.kind: cls for cls in (Space, ProgramSpace, LionSpace, TextSpace)}


def make_space(config: Mapping[str, Any]) -> SearchSpace:
    """Returns the space of a configuration. A run from before there was a second kind names none: its space is the
    paper's."""
    kind = str(config.get("kind", Space.kind))
    if kind not in SPACES:
        raise choose("--space", kind, tuple(SPACES))
    return SPACES[kind].from_config(config)
