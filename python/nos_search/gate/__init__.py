"""Gates before training: what can be told about a rule in microseconds instead of by training a child."""

from .funnel import Funnel
from .verdict import GATES, GateCount, Gates, Verdict, gate_counts

__all__ = ["GATES", "Funnel", "GateCount", "Gates", "Verdict", "gate_counts"]
