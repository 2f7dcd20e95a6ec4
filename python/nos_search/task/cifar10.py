"""Owns the cifar10 task: CIFAR-10 (Krizhevsky 2009), 32x32 colour images of ten classes, the paper's own data.

The data do not come with the package. A --data-dir holds one of
  cifar-10-binary.tar.gz or cifar-10-python.tar.gz, whole and unchanged (MD5 checked);
  the folder cifar-10-batches-bin, or its files data_batch_1..5.bin and test_batch.bin;
  the folder cifar-10-batches-py, or its files data_batch_1..5 and test_batch (MD5 checked, then read by an unpickler
  that makes arrays and nothing else).
An archive is unpacked in memory each time, in about two seconds: an unpacked copy beside it would be trusted without
the archive's checksum. The last 5000 training images are held out for validation.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from .base import Budget, Split, Task, standardise

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVES = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}
BATCHES = {  # of the python version
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
RECORDS = 10_000  # of each file
_PIXELS = 3 * 32 * 32  # red, green, blue planes, each row by row
_HELD_OUT = 5000
_BATCH = 100
_HOW = (
    f"it must hold {' or '.join(ARCHIVES)}, or the folder cifar-10-batches-bin or cifar-10-batches-py "
    "(--download fetches the first)"
)


def md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_md5(path: Path, expected: str) -> None:
    """Raises UsageError unless the file has that MD5."""
    found = md5(path)
    if found != expected:
        raise UsageError(
            f"--data-dir: {path} has MD5 {found}, not {expected}; it is damaged or not CIFAR-10: fetch it again"
        )


class _Arrays(pickle.Unpickler):
    """This unpickler makes dicts, lists, numbers, strings and NumPy arrays, and refuses every other class."""

    _ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how protocol 2 of Python 3 writes bytes
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR-10 batch")
        return super().find_class(module.replace("numpy.core", "numpy._core") if _NEW_NUMPY else module, name)


_NEW_NUMPY = int(np.__version__.split(".")[0]) >= 2


def read_binary(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Returns the (RECORDS, 1 + 3072) bytes of one .bin file, which are the label and then the pixels."""
    if len(raw) != RECORDS * (1 + _PIXELS):
        raise UsageError(f"--data-dir: {name} has {len(raw)} bytes, not {RECORDS * (1 + _PIXELS)}; fetch it again")
    return _checked(np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + _PIXELS), name)


def read_pickle(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Returns the same from one batch of the python version."""
    try:
        batch = _Arrays(io.BytesIO(raw), encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.uint8)
        if data.shape != (RECORDS, _PIXELS) or labels.shape != (RECORDS,):
            raise ValueError(f"shapes {data.shape} and {labels.shape}")
    except Exception as error:  # a pickle can fail in any way
        raise UsageError(f"--data-dir: {name} is not a CIFAR-10 batch ({type(error).__name__}: {error})") from None
    return _checked(np.concatenate([labels[:, None], data], 1), name)


def _checked(records: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    if records[:, 0].max() > 9:
        raise UsageError(f"--data-dir: {name} has labels above 9; it is not CIFAR-10")
    return records


Reader = Callable[[bytes, str], NDArray[np.uint8]]


def _form(python: bool) -> tuple[tuple[str, ...], Reader]:
    """Returns the file names of one of the two versions in order, training first, and the reader of each file."""
    names = tuple(BATCHES) if python else tuple(f"{name}.bin" for name in BATCHES)
    return names, read_pickle if python else read_binary


def _from_archive(path: Path) -> NDArray[np.uint8]:
    """Returns all records of an archive."""
    check_md5(path, ARCHIVES[path.name])
    names, read = _form("python" in path.name)
    found: dict[str, NDArray[np.uint8]] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                base = member.name.rpartition("/")[2]
                file = archive.extractfile(member) if base in names else None
                if file is not None:
                    found[base] = read(file.read(), f"{path}: {base}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UsageError(f"--data-dir: {path} cannot be unpacked ({error}); fetch it again") from None
    if missing := [name for name in names if name not in found]:
        raise UsageError(f"--data-dir: {path} lacks {', '.join(missing)}; fetch it again")
    return np.concatenate([found[name] for name in names])


def _from_folder(folder: Path, python: bool) -> NDArray[np.uint8] | None:
    names, read = _form(python)
    paths = [folder / name for name in names]
    if not paths[0].is_file():
        return None
    parts = []
    for path, digest in zip(paths, BATCHES.values(), strict=True):
        if not path.is_file():
            raise UsageError(f"--data-dir: {path} is missing")
        if python:
            check_md5(path, digest)
        parts.append(read(path.read_bytes(), str(path)))
    return np.concatenate(parts)


def records(folder: Path) -> NDArray[np.uint8]:
    """Returns (60000, 1 + 3072) labels and pixels, the 50000 training images first. Raises UsageError when `folder`
    lacks them."""
    for name, python in (("cifar-10-batches-bin", False), ("cifar-10-batches-py", True)):
        for place in (folder / name, folder):
            found = _from_folder(place, python)
            if found is not None:
                return found
    for name in ARCHIVES:
        if (folder / name).is_file():
            return _from_archive(folder / name)
    raise UsageError(f"--data-dir {folder} has no CIFAR-10; {_HOW}")


def load(data_dir: Path | None) -> Task:
    """Returns the task from `data_dir`. Raises UsageError when that is None."""
    if data_dir is None:
        raise UsageError(f"task 'cifar10' needs --data-dir: {_HOW}")
    data = records(data_dir)
    count = 5 * RECORDS
    held = min(_HELD_OUT, count // 10)
    parts = (slice(0, count - held), slice(count - held, count), slice(count, None))
    pixels = torch.from_numpy(np.ascontiguousarray(data[:, 1:])).view(-1, 3, 32, 32)
    labels = torch.from_numpy(data[:, 0].astype(np.int64))
    images = standardise(*(pixels[part].to(torch.float32) for part in parts))
    train, val, test = (Split(x, labels[part]) for x, part in zip(images, parts, strict=True))
    epoch = max(1, len(train) // _BATCH)
    budget = Budget(batch_size=_BATCH, sweep_steps=epoch, train_steps=5 * epoch)
    return Task("cifar10", train, val, test, classes=10, width=32, budget=budget, mirrors=True)
