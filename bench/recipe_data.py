"""Owns what the small recipes of bench.recipes train on: each function writes files and returns the recipe's arguments
that name them, those of the trainings that are reported and those of the trainings that choose a rate."""

from __future__ import annotations

import lzma
import pickle
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nos_search.task import fashion

_PACKAGE: Final = Path(__file__).resolve().parents[1] / "python" / "nos_search" / "data"
TUNED_ON: Final = 5000  # images that a training sees which chooses a rate


class Data(NamedTuple):
    """The arguments of a recipe that name its data."""

    reported: list[str]
    tuning: list[str]


def _read(name: str) -> str:
    with lzma.open(_PACKAGE / name, "rt", encoding="utf-8") as file:
        return file.read()


def text(folder: Path, _data_dir: Path | None) -> Data:
    """A part of the King James Bible, as one file."""
    (folder / "text").write_text(_read("kjv_text.txt.xz"), encoding="utf-8")
    names = [str(folder / "text")]
    return Data(names, names)


def pairs(folder: Path, _data_dir: Path | None) -> Data:
    """Verses in English and Spanish; the first 300 are for validation."""
    verses = [line.split("\t") for line in _read("kjv_rv1909_pairs.txt.xz").strip().split("\n")]
    names = []
    for part, some in (("train", verses[300:]), ("valid", verses[:300])):
        for side, language in enumerate(("en", "es")):
            path = folder / f"{part}.{language}"
            path.write_text("\n".join(pair[side] for pair in some) + "\n", encoding="utf-8")
            names.append(str(path))
    return Data(names, names)


def clothes(folder: Path, data_dir: Path | None) -> Data:
    """Fashion-MNIST from its four idx files, as batches of CIFAR-10: images of 28x28 with two black pixels on every
    side, the same in all three colours. The last 5000 training images are to be held out. The data to tune on have the
    first TUNED_ON of the others, the same held-out ones, and no test image."""
    found = fashion.arrays(data_dir or fashion.DEBIAN)
    held = found["val_x"], found["val_y"]
    for name, count, test in (
        ("reported", None, (found["test_x"], found["test_y"])),
        ("tuning", TUNED_ON, (held[0][:100], held[1][:100])),
    ):
        place = folder / name
        place.mkdir(exist_ok=True)
        images = np.concatenate([found["train_x"][:count], held[0]])
        classes = np.concatenate([found["train_y"][:count], held[1]])
        parts = zip(np.array_split(images, 5), np.array_split(classes, 5), strict=True)
        for i, (some, of_them) in enumerate(parts, 1):
            _write_batch(place / f"data_batch_{i}", some, of_them)
        _write_batch(place / "test_batch", *test)
    return Data([str(folder / "reported")], [str(folder / "tuning")])


def _write_batch(path: Path, images: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
    """Writes grey images as CIFAR-10 has its own: a pickle of rows of 3 x 32 x 32 bytes and a list of classes."""
    before = [(32 - size) // 2 for size in images.shape[1:]]
    around = [(0, 0), *((room, 32 - size - room) for room, size in zip(before, images.shape[1:], strict=True))]
    rows = np.pad(images, around)[:, None].repeat(3, axis=1).reshape(len(images), -1)
    path.write_bytes(pickle.dumps({b"data": rows, b"labels": classes.tolist()}, protocol=4))
