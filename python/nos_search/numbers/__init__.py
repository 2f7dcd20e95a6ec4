"""The numbers of a rule are found here: which are constants that can be tuned, and how others take their places."""

from .constants import GUARD, Constant, Constants, Kind, constants_of
from .text import bare, digits, with_numbers

__all__ = ["GUARD", "Constant", "Constants", "Kind", "bare", "constants_of", "digits", "with_numbers"]
