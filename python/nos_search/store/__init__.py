"""The store is what a run folder remembers (store.py). The rest of this folder sees to it that nothing else is taken
for it."""

from .place import FILE
from .records import STATUSES, Score, Trial, answered
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
    "answered",
    "clean",
    "record_fault",
]
