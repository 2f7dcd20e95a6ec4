"""Simplifying takes a rule apart: it leaves out one thing after another, as long as trainings show no loss."""

from .chain import Better, Chain, Step, simplify
from .reduce import Reduction, reductions

__all__ = ["Better", "Chain", "Reduction", "Step", "reductions", "simplify"]
