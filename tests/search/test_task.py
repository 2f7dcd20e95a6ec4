"""The tasks: splits, balance, standardisation, and readers of user folders."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from nos_search.errors import UsageError
from nos_search.task import TASKS, load
from nos_search.task.fashion import SUBSET, read_idx


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task(name: str) -> None:
    task = load(name)
    assert task.name == name
    for split in (task.train, task.val, task.test):
        assert split.x.dtype == torch.float32
        assert split.x.is_contiguous()
        counts = split.y.bincount(minlength=task.classes)
        assert len(counts) == task.classes
        assert counts.min() > 0
    assert abs(float(task.train.x.mean())) < 1e-4
    assert abs(float(task.train.x.std()) - 1) < 1e-4
    # no image of one split is in another
    seen = [{x.numpy().tobytes() for x in split.x} for split in (task.train, task.val, task.test)]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    again = load(name)
    assert torch.equal(task.train.x, again.train.x)
    assert torch.equal(task.train.y, again.train.y)


def test_digits_split_is_fixed() -> None:
    task = load("digits")
    assert [len(split) for split in (task.train, task.val, task.test)] == [1100, 297, 400]
    labels = torch.cat([task.train.y, task.val.y, task.test.y]).to(torch.uint8)
    assert hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16] == "97e3c8f37fa9b781"


def test_fashion_subset_is_balanced_and_licensed() -> None:
    task = load("fashion")
    for split, count in ((task.train, 500), (task.val, 100), (task.test, 100)):
        assert split.y.bincount().tolist() == [count] * 10
        assert split.x.shape[1:] == (1, 28, 28)
    assert SUBSET.stat().st_size < 3_000_000
    assert "Copyright (c) 2017 Zalando SE" in (SUBSET.parent / "fashion_mnist.LICENSE").read_text()


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.GzipFile(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(head + array.tobytes())


def test_fashion_from_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prefix, count, suffix in (("train", 5100, ".gz"), ("t10k", 30, "")):
        write_idx(
            tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    task = load("fashion", data_dir=tmp_path)
    assert [len(split) for split in (task.train, task.val, task.test)] == [100, 5000, 30]
    assert task.val.y[0] == 0  # the 101st of the file
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match=r"has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"):
        load("fashion", data_dir=tmp_path)


def test_broken_idx_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good"
    write_idx(good, np.arange(12, dtype=np.uint8).reshape(3, 4, 1))
    assert read_idx(good).tolist() == np.arange(12).reshape(3, 4, 1).tolist()
    for name, raw in {
        "short": good.read_bytes()[:-1],
        "long": good.read_bytes() + b"x",
        "magic": b"\0\0\x0d\x03" + good.read_bytes()[4:],
        "head": good.read_bytes()[:6],
        "empty": b"",
        "plain.gz": good.read_bytes(),
        "cut.gz": gzip.compress(good.read_bytes())[:20],
    }.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UsageError, match=f"--data-dir.*{name}"):
            read_idx(tmp_path / name)


def test_wrong_tasks_and_options() -> None:
    with pytest.raises(UsageError, match="--task 'cifar' is not known; choose one of: digits, fashion"):
        load("cifar")
    with pytest.raises(UsageError, match="--data-dir /no/such/folder is not a folder"):
        load("fashion", data_dir=Path("/no/such/folder"))
    task = load("digits")
    with pytest.raises(UsageError, match="--width 0 is below 1"):
        task.with_options(width=0)
    changed = task.with_options(width=3, sweep_steps=2, train_steps=4)
    assert (changed.width, changed.budget.sweep_steps, changed.budget.train_steps) == (3, 2, 4)
    assert task.with_options() == task
