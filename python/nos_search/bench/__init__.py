"""Benches of the search, run by `nos-search bench NAME`. They print what docs quote; each times things within one run.

A bench is one file here with `arguments(parser)` and `run(options) -> Report`, and one row in registry.py.
"""

from .base import Report, seconds
from .registry import BENCHES, load_bench

__all__ = ["BENCHES", "Report", "load_bench", "seconds"]
