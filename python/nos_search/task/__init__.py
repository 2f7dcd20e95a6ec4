"""Tasks have labelled data in fixed splits, and the child network that a rule has to train on them."""

from .base import Budget, Split, Task, contents
from .registry import TASKS, is_code, load
from .score import SCORES

__all__ = ["SCORES", "TASKS", "Budget", "Split", "Task", "contents", "is_code", "load"]
