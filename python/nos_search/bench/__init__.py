"""These benches of the search are run by `nos-search bench NAME`. They print what the docs quote, and each compares
times within one run.

A bench is one file here with `arguments(parser)` and `run(options, note=...) -> BenchResult`, and one row in
registry.py.
"""

from .base import BenchResult
from .registry import BENCHES, load_bench

__all__ = ["BENCHES", "BenchResult", "load_bench"]
