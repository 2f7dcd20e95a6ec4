"""Owns what is asked of the machine before anything heavy is imported."""

from __future__ import annotations

import os


def cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
