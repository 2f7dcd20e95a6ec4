"""Benches of nos_ext against every peer; `python -m bench.run --help`. Method and results: docs/performance.md."""
