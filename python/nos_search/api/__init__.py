"""What a Python program calls: search on a task of its own, and what comes of a run.

They are the names of `nos_search` itself, too, where they are imported when they are asked for.
"""

from ..run import Listener
from ..task import Task
from .run import Run
from .searching import load, search

__all__ = ["Listener", "Run", "Task", "load", "search"]
