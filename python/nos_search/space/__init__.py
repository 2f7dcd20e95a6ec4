"""The search space of the paper: vocabularies, strings of tokens, masks, and the way between tokens and rule text."""

from .encode import encode
from .space import Options, Position, Space, Tokens
from .vocabulary import VOCABULARIES, Token

__all__ = ["VOCABULARIES", "Options", "Position", "Space", "Token", "Tokens", "encode"]
