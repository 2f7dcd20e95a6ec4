"""Owns the tasks fashion, fashion14 and fashion-full: Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence), 28x28
grey images of ten kinds of clothes.

The package carries 5000 training, 1000 validation and 1000 test images (see _make_fashion_subset.py), so `fashion`
works anywhere; `fashion14` is the same at half the size, for a small network. The full set, with the last 5000 training
images held out for validation, comes from a --data-dir with the four original idx files; `fashion-full` looks for them
where Debian's dataset-fashion-mnist puts them otherwise.
"""

from __future__ import annotations

import gzip
import io
import lzma
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..errors import UsageError
from .base import Budget, Split, Task, standardise

SUBSET = Path(__file__).resolve().parent.parent / "data" / "fashion_mnist_subset.npy.xz"
_ORDER = ("test_x", "test_y", "train_x", "train_y", "val_x", "val_y")  # the arrays of SUBSET, one npy after another
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_HELD_OUT = 5000
_BATCH = 100
_CLASSES = 10
_MAGIC = {1: 0x801, 3: 0x803}  # idx files of unsigned bytes with 1 and 3 dimensions


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Returns one idx file of bytes, plain or gzipped. Raises UsageError when it is missing, cut short or something
    else."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"--data-dir: cannot read {path}: {error}") from None
    magic = int.from_bytes(raw[:4], "big")
    dimensions = next((d for d, m in _MAGIC.items() if m == magic), 0)
    shape = tuple(int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(dimensions))
    body = raw[4 + 4 * dimensions :]
    if not dimensions or not body or len(body) != math.prod(shape):
        raise UsageError(f"--data-dir: {path} is not a whole idx file of bytes; fetch Fashion-MNIST again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _subset() -> dict[str, NDArray[np.uint8]]:
    plain = io.BytesIO(lzma.decompress(SUBSET.read_bytes()))
    return {name: np.lib.format.read_array(plain, allow_pickle=False) for name in _ORDER}


def _full(folder: Path) -> dict[str, NDArray[np.uint8]]:
    def find(name: str) -> NDArray[np.uint8]:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return read_idx(path)
        raise UsageError(f"--data-dir {folder} has no {name} or {name}.gz; it must hold the four Fashion-MNIST files")

    def pair(name: str, fewest: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images, labels = find(f"{name}-images-idx3-ubyte"), find(f"{name}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.ndim != 1 or len(images) < fewest or len(images) != len(labels):
            raise UsageError(
                f"--data-dir {folder}: the {name} files have shapes {images.shape} and {labels.shape}; "
                f"want {fewest} or more images, and as many labels"
            )
        if labels.max() >= _CLASSES:
            raise UsageError(f"--data-dir {folder}: the {name} labels go up to {labels.max()}; it is not Fashion-MNIST")
        return images, labels

    (images, labels), (test_x, test_y) = pair("train", _HELD_OUT + 1), pair("t10k", 1)
    if images.shape[1:] != test_x.shape[1:]:
        raise UsageError(f"--data-dir {folder}: images of {images.shape[1:]} to train, of {test_x.shape[1:]} to test")
    return {
        "train_x": images[:-_HELD_OUT],
        "train_y": labels[:-_HELD_OUT],
        "val_x": images[-_HELD_OUT:],
        "val_y": labels[-_HELD_OUT:],
        "test_x": test_x,
        "test_y": test_y,
    }


def arrays(data_dir: Path | None) -> dict[str, NDArray[np.uint8]]:
    """Returns images (n, height, width) and labels (n,) by name: train_x, train_y, val_x and so on. They are from
    `data_dir`, or the carried subset when that is None."""
    return _subset() if data_dir is None else _full(data_dir)


def load(data_dir: Path | None) -> Task:
    """Returns the task from `data_dir`, or from the carried subset when that is None."""
    return _task("fashion", arrays(data_dir))


def load_full(data_dir: Path | None) -> Task:
    """Returns the full set from `data_dir`, or from Debian's package when that is None. Raises UsageError when neither
    is there."""
    if data_dir is None and not DEBIAN.is_dir():
        raise UsageError(
            f"task 'fashion-full' needs --data-dir with the four Fashion-MNIST files, or {DEBIAN} "
            "(apt-get install dataset-fashion-mnist); task 'fashion' has a part of them in the package"
        )
    return _task("fashion-full", _full(data_dir or DEBIAN))


def load_small(data_dir: Path | None) -> Task:
    """Returns the task `fashion` with images of half the size, which are means of 2x2 pixels, and a child of 8
    filters."""
    task = load(data_dir)
    parts = (task.train, task.val, task.test)
    pooled = standardise(*(F.avg_pool2d(part.x, 2) for part in parts))
    train, val, test = (Split(x, part.y) for x, part in zip(pooled, parts, strict=True))
    return replace(task, name="fashion14", train=train, val=val, test=test, width=8)


def _task(name: str, arrays: dict[str, NDArray[np.uint8]]) -> Task:
    images = [
        torch.from_numpy(arrays[f"{split}_x"].astype(np.float32)).unsqueeze(1) for split in ("train", "val", "test")
    ]
    labels = [torch.from_numpy(arrays[f"{split}_y"].astype(np.int64)) for split in ("train", "val", "test")]
    train, val, test = (Split(x, y) for x, y in zip(standardise(*images), labels, strict=True))
    epoch = len(train) // _BATCH
    budget = Budget(batch_size=_BATCH, sweep_steps=epoch, train_steps=5 * epoch)
    return Task(name, train, val, test, classes=_CLASSES, width=32, budget=budget, mirrors=True)
