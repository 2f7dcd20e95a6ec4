"""Owns the patch10 task: from which of ten colour photos is a 32x32 patch? It is shaped like CIFAR-10 and always at
hand.

The photos ship inside scikit-learn (two) and scikit-image (eight); nothing is fetched. Each photo is divided into cells
of 64 pixels; whole cells are given to training, validation or test, so no pixel is in two splits. Patches lie at random
places of their cells, which come from a fixed stream. 8000 train, 1000 validate and 1000 test, with equal numbers of
each class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import SearchError
from .base import Budget, Split, Task, standardise

_SKLEARN = ("china.jpg", "flower.jpg")
_SKIMAGE = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "motorcycle_left.png",
)
_CELL, _PATCH = 64, 32
_FLAT = 4.0  # grey levels; cells and patches with less contrast (the black around the retina) are left out
_DRAWN = 3  # patches drawn for each one that is kept
_COUNTS = {"train": 800, "val": 100, "test": 100}  # of each class
_STREAM = 20170806  # fixes the patches; RandomState's stream is frozen by NumPy's policy
_BUDGET = Budget(batch_size=100, sweep_steps=40, train_steps=160)  # a half and two epochs


def photos() -> list[NDArray[np.uint8]]:
    """Returns the ten photos, (height, width, 3). Raises SearchError when a package is missing or no longer carries its
    photo."""
    try:
        import skimage  # type: ignore[import-not-found, unused-ignore]
        import sklearn  # type: ignore[import-untyped]
        from skimage.io import imread  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise SearchError(
            f"task 'patch10' needs the photos of scikit-learn and scikit-image ({error}); "
            "install them with: pip install scikit-learn scikit-image"
        ) from None
    paths = [Path(sklearn.__file__).parent / "datasets/images" / name for name in _SKLEARN]
    paths += [Path(skimage.__file__).parent / "data" / name for name in _SKIMAGE]
    for path in paths:
        if not path.is_file():
            raise SearchError(f"task 'patch10': {path} is missing; install scikit-image 0.22 or newer from its wheel")
    return [np.ascontiguousarray(imread(path)[..., :3]) for path in paths]


def _deal(photo: NDArray[np.uint8], stream: np.random.RandomState) -> dict[str, NDArray[np.uint8]]:
    """Returns the patches of one photo by split; of every ten cells eight train, one validates and one tests."""
    rows, columns = photo.shape[0] // _CELL, photo.shape[1] // _CELL
    whole = photo[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL, 3)
    flat = whole[:, ::4, :, ::4].std((1, 3)).mean(-1).ravel() < _FLAT
    cells = stream.permutation(np.flatnonzero(~flat))
    held = max(1, len(cells) // 10)
    shares = {"val": cells[:held], "test": cells[held : 2 * held], "train": cells[2 * held :]}
    patches = {}
    for split, count in _COUNTS.items():
        chosen = shares[split][np.arange(_DRAWN * count) % len(shares[split])]
        shift = stream.randint(0, _CELL - _PATCH + 1, (len(chosen), 2))
        tops, lefts = chosen // columns * _CELL + shift[:, 0], chosen % columns * _CELL + shift[:, 1]
        drawn = np.stack(
            [photo[top : top + _PATCH, left : left + _PATCH] for top, left in zip(tops, lefts, strict=True)]
        )
        patches[split] = drawn[drawn[:, ::4, ::4].std((1, 2)).mean(-1) >= _FLAT][:count]
    return patches


def load(data_dir: Path | None) -> Task:
    """Returns the task; data_dir is not used."""
    stream = np.random.RandomState(_STREAM)
    dealt = [_deal(photo, stream) for photo in photos()]
    images, labels = [], []
    for split, count in _COUNTS.items():
        patches = np.concatenate([patch[split] for patch in dealt])
        order = stream.permutation(len(patches))
        images.append(torch.from_numpy(patches[order].transpose(0, 3, 1, 2).astype(np.float32)))
        labels.append(torch.from_numpy((order // count).astype(np.int64)))
    train, val, test = (Split(x, y) for x, y in zip(standardise(*images), labels, strict=True))
    return Task("patch10", train, val, test, classes=10, width=16, budget=_BUDGET, mirrors=True)
