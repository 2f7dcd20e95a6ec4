"""The constants of a rule are tuned here, by CMA-ES: its numbers and the defaults of its hyperparameters, many sets of
them at once."""

from ..numbers import Constant, Constants
from .tune import Chosen, Confirmed, Generation, Tuned, confirm, tune

__all__ = ["Chosen", "Confirmed", "Constant", "Constants", "Generation", "Tuned", "confirm", "tune"]
