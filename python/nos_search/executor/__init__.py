"""Executors run the training of children for the search loop."""

from .base import Answer, Executor, Job
from .inprocess import InProcess

__all__ = ["Answer", "Executor", "InProcess", "Job"]
