"""Gates stand before training: they tell in microseconds what would else take the training of a child to find out."""

from .funnel import Funnel
from .verdict import GATES, GateCount, Gates, Verdict, gate_counts

__all__ = ["GATES", "Funnel", "GateCount", "Gates", "Verdict", "gate_counts"]
