"""Strategies propose rules and learn from rewards, all of them behind one ask/tell contract."""

from .base import Candidate, Result, State, Strategy
from .controller import ControllerStrategy
from .evolution import EvolutionStrategy
from .external import ExternalStrategy
from .optuna import OptunaStrategy
from .random import RandomStrategy
from .registry import STRATEGIES, completed, create

__all__ = [
    "STRATEGIES",
    "Candidate",
    "ControllerStrategy",
    "EvolutionStrategy",
    "ExternalStrategy",
    "OptunaStrategy",
    "RandomStrategy",
    "Result",
    "State",
    "Strategy",
    "completed",
    "create",
]
