"""Benches of the search, run by `nos-search bench NAME`. They print what docs quote; each times things within one run.

A bench is one file here with `arguments(parser)` and `run(options, note=...) -> BenchResult`, and one row in
registry.py.
"""

from .base import BenchResult
from .registry import BENCHES, load_bench

__all__ = ["BENCHES", "BenchResult", "load_bench"]
