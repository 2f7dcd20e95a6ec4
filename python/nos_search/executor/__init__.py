"""Executors train children for the search loop: in this process, in local processes, or on a Ray cluster."""

from .base import Answer, Executor, Job, Loader, Scorer
from .inprocess import InProcess
from .registry import EXECUTORS, Workers, create, several

__all__ = ["EXECUTORS", "Answer", "Executor", "InProcess", "Job", "Loader", "Scorer", "Workers", "create", "several"]
