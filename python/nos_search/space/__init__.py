"""A search space has a vocabulary, strings of tokens, masks, and a way from tokens to rule text and back."""

from .base import Position, SearchSpace, Tokens
from .encode import encode
from .lion import LionSpace
from .program import ProgramSpace
from .registry import SPACES, make_space
from .space import Options, Space
from .text import TextSpace
from .vocabulary import VOCABULARIES, Token

__all__ = [
    "SPACES",
    "VOCABULARIES",
    "LionSpace",
    "Options",
    "Position",
    "ProgramSpace",
    "SearchSpace",
    "Space",
    "TextSpace",
    "Token",
    "Tokens",
    "encode",
    "make_space",
]
