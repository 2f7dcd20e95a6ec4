"""Owns the names that the command line shows in its help, so that `--help` need not import torch to list them.

The registries beside the implementations decide what there is, and tests/search/test_command_line.py holds this list to
them.
"""

from __future__ import annotations

TASKS = ("digits", "fashion", "fashion-full", "patch10", "cifar10", "charlm", "translate")
STRATEGIES = ("controller", "evolution", "random", "optuna")
SPACES = ("nos", "program")
VOCABULARIES = ("icml", "arxiv", "arxiv-decay")
NETS = ("convnet", "wrn", "mlp", "gru", "transformer")
SWEEPS = ("fine", "halving", "full")
PROTOCOLS = ("default", "paper")
ENGINES = ("auto", "native", "torch")
EXECUTORS = ("inprocess", "fork", "loky", "ray")
DEVICES = ("cpu", "cuda")
FORMATS = ("torch", "csv", "curves", "optuna")  # of export
PLOTS = ("svg", "png", "pdf")
