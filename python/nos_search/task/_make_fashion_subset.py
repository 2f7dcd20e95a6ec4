"""Makes data/fashion_mnist_subset.npy.xz, the part of Fashion-MNIST that this package carries.

    python -m nos_search.task._make_fashion_subset /usr/share/datasets/fashion-mnist

It takes 5000 training, 1000 validation and 1000 test images, with equal numbers of each class: the first of each class
in file order (validation follows training in the training file; test images come from the test file). The file is six
npy arrays in alphabetical order, one after the other, compressed by xz; the same input gives the same bytes.
"""

from __future__ import annotations

import io
import lzma
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .fashion import SUBSET, read_idx

_PER_CLASS = {"train": 500, "val": 100, "test": 100}


def _first(labels: NDArray[np.uint8], start: int, count: int) -> NDArray[np.int64]:
    """Returns the indices of the `count` images of each class that follow its first `start`, in file order."""
    chosen = [np.flatnonzero(labels == k)[start : start + count] for k in range(10)]
    return np.sort(np.concatenate(chosen))


def main(folder: Path) -> None:
    arrays: dict[str, NDArray[np.uint8]] = {}
    for split, count in _PER_CLASS.items():
        prefix = "t10k" if split == "test" else "train"
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        index = _first(labels, _PER_CLASS["train"] if split == "val" else 0, count)
        arrays[f"{split}_x"], arrays[f"{split}_y"] = images[index], labels[index]
    plain = io.BytesIO()
    for name in sorted(arrays):
        np.lib.format.write_array(plain, arrays[name], allow_pickle=False)
    SUBSET.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{SUBSET}: {SUBSET.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
