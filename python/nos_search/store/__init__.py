"""The store of a run: what a run folder remembers (store.py), and how nothing else is taken for it."""

from .place import FILE
from .records import STATUSES, Score, Trial
from .relations import PROMOTION
from .schema import clean, record_fault
from .store import Store

__all__ = [
    "FILE",
    "PROMOTION",
    "STATUSES",
    "Score",
    "Store",
    "Trial",
    "clean",
    "record_fault",
]
