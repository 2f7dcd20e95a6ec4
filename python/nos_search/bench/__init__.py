"""Benches of the search, run by `nos-search bench NAME`. They print what docs quote; each times things within one run.

A bench is one file here with `arguments(parser)` and `run(options, note=...) -> Report`, and one row in registry.py.
"""

from .base import Report
from .registry import BENCHES, load_bench

__all__ = ["BENCHES", "Report", "load_bench"]
