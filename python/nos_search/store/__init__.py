"""The store of a run: what a run folder remembers (store.py), and how nothing else is taken for it."""

from .place import FILE, LOCK
from .records import SCORE_STATUSES, STATES, STATUSES, Score, Trial
from .relations import PROMOTION
from .schema import clean, record_fault
from .store import Store

__all__ = [
    "FILE",
    "LOCK",
    "PROMOTION",
    "SCORE_STATUSES",
    "STATES",
    "STATUSES",
    "Score",
    "Store",
    "Trial",
    "clean",
    "record_fault",
]
