"""Owns the names that the command line shows in its help, so that `--help` need not import torch to list them.

The registries beside the implementations decide what there is, and tests/search/test_command_line.py holds this list to
them.
"""

from __future__ import annotations

TASKS = (
    "charmlp",
    "teacher",
    "mnist1d",
    "digits",
    "fashion",
    "fashion14",
    "fashion-full",
    "patch10",
    "cifar10",
    "charlm",
    "translate",
    "chirps",
    "spanish",
    "spanishlm",
    "tabular",
    "friedman",
    "autoencoder",
)
STRATEGIES = ("controller", "evolution", "random", "optuna", "external")
SPACES = ("nos", "program", "lion", "text")
VOCABULARIES = ("icml", "arxiv", "arxiv-decay")
NETS = ("convnet", "wrn", "mlp", "gru", "transformer", "autoencoder")
SCORES = ("accuracy", "bits-saved")
SWEEPS = ("fine", "halving", "full")
DECAYS = ("none", "linear", "cosine", "linear_cosine")
PROTOCOLS = ("default", "paper")
ENGINES = ("auto", "native", "torch")
EXECUTORS = ("inprocess", "fork", "loky", "ray")
DEVICES = ("cpu", "cuda")
FORMATS = ("torch", "csv", "curves", "optuna")  # of export
LOGGERS = ("tensorboard", "wandb", "mlflow")
PLOTS = ("svg", "png", "pdf")
