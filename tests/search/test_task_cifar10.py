"""CIFAR-10: every layout in which it is distributed, made here with fewer records, and everything that can be wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nos_search.cli import main
from nos_search.errors import SearchError, UsageError
from nos_search.task import cifar10, load
from nos_search.task.download import download

N = 40


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Six files of N records: (labels, pixels)."""
    monkeypatch.setattr(cifar10, "RECORDS", N)
    rng = np.random.default_rng(0)
    return {
        name: (rng.permutation(np.arange(N) % 10).astype(np.uint8), rng.integers(0, 256, (N, 3072), dtype=np.uint8))
        for name in cifar10.BATCHES
    }


def binary(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    """Records of one label byte and 3072 pixel bytes."""
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def python2_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + len(text).to_bytes(4, "little") + text


def python2_pickle(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    """What Python 2 wrote for {"data": array, "labels": list}, opcode by opcode: byte strings, numpy.core paths."""
    count = len(labels)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string(b"b") + b"\x87R"
        b"(K\x01" + (b"K" + bytes([count])) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + python2_string(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + python2_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + python2_string(pixels.tobytes()) + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + python2_string(b"data") + array + python2_string(b"labels") + numbers + b"u."


def bin_folder(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        (folder / f"{name}.bin").write_bytes(binary(*batch))
    return folder


def py_folder(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        raw = python2_pickle(*batch)
        (folder / name).write_bytes(raw)
        monkeypatch.setitem(cifar10.BATCHES, name, hashlib.md5(raw).hexdigest())
    return folder


def archive(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    monkeypatch.setitem(cifar10.ARCHIVES, path.name, cifar10.md5(path))
    return path


def check(task: object, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    labels = np.concatenate([batch[0] for batch in batches.values()])
    pixels = np.concatenate([batch[1] for batch in batches.values()]).reshape(-1, 3, 32, 32).astype(np.float32)
    splits = (task.train, task.val, task.test)  # type: ignore[attr-defined]
    assert [len(split) for split in splits] == [180, 20, 40]
    assert torch.cat([split.y for split in splits]).tolist() == labels.tolist()
    mean, std = pixels[:180].mean(), pixels[:180].std(ddof=1)
    got = torch.cat([split.x for split in splits])
    assert torch.allclose(got, torch.from_numpy((pixels - mean) / std), atol=1e-5)


def test_every_layout(batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bins = bin_folder(tmp_path / "a" / "cifar-10-batches-bin", batches)
    pys = py_folder(tmp_path / "b" / "cifar-10-batches-py", batches, monkeypatch)
    for name, folder in (("cifar-10-binary.tar.gz", bins), ("cifar-10-python.tar.gz", pys)):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        archive(place / name, folder, monkeypatch)
        check(load("cifar10", data_dir=place), batches)
        assert [entry.name for entry in place.iterdir()] == [name]  # nothing is left beside it
    for folder in (bins, bins.parent, pys, pys.parent):
        check(load("cifar10", data_dir=folder), batches)
    task = load("cifar10", data_dir=bins)
    assert (task.shape.channels, task.shape.size, task.classes) == (3, (32, 32), 10)


def test_pickles_of_python_3_are_read_too(batches: dict) -> None:
    labels, pixels = batches["data_batch_1"]
    raw = pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2)
    assert np.array_equal(cifar10.read_pickle(raw, "x"), np.concatenate([labels[:, None], pixels], 1))


def test_only_what_has_a_checksum_is_trusted(batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpacked copy beside the archive, as earlier releases left one, is not read: it may hold anything."""
    bins = bin_folder(tmp_path / "a" / "cifar-10-batches-bin", batches)
    archive(tmp_path / "cifar-10-binary.tar.gz", bins, monkeypatch)
    shutil.rmtree(bins.parent)
    records = np.full((6 * N, 1 + 3072), 250, np.uint8)
    np.save(tmp_path / "cifar-10-binary.npy", records)
    check(load("cifar10", data_dir=tmp_path), batches)


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/evil",)


def test_pickles_that_are_no_batches(batches: dict) -> None:
    for raw in (
        pickle.dumps(Evil()),
        pickle.dumps({b"data": Evil()}),
        pickle.dumps([1]),
        pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3]}),
        b"not a pickle",
        b"",
    ):
        with pytest.raises(UsageError, match="batch_x is not a CIFAR-10 batch"):
            cifar10.read_pickle(raw, "batch_x")
    with pytest.raises(UsageError, match="system does not belong in a CIFAR-10 batch"):
        cifar10.read_pickle(pickle.dumps(Evil()), "x")


def test_damage_is_named(batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="task 'cifar10' needs --data-dir"):
        load("cifar10")
    with pytest.raises(UsageError, match=r"has no CIFAR-10; it must hold cifar-10-binary.tar.gz"):
        load("cifar10", data_dir=tmp_path)
    bins = bin_folder(tmp_path / "a" / "cifar-10-batches-bin", batches)
    good = (bins / "data_batch_2.bin").read_bytes()
    (bins / "data_batch_2.bin").write_bytes(good[:-1])
    with pytest.raises(UsageError, match=r"data_batch_2.bin has \d+ bytes, not \d+; fetch it again"):
        load("cifar10", data_dir=bins)
    (bins / "data_batch_2.bin").write_bytes(b"\x0b" + good[1:])
    with pytest.raises(UsageError, match=r"data_batch_2.bin has labels above 9"):
        load("cifar10", data_dir=bins)
    (bins / "data_batch_2.bin").unlink()
    with pytest.raises(UsageError, match=r"data_batch_2.bin is missing"):
        load("cifar10", data_dir=bins)
    path = archive(tmp_path / "cifar-10-binary.tar.gz", bins, monkeypatch)
    with pytest.raises(UsageError, match=r"lacks data_batch_2.bin; fetch it again"):
        load("cifar10", data_dir=tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match=r"has MD5 .* it is damaged or not CIFAR-10"):
        load("cifar10", data_dir=tmp_path)
    monkeypatch.setitem(cifar10.ARCHIVES, path.name, cifar10.md5(path))
    with pytest.raises(UsageError, match=r"cannot be unpacked|lacks"):
        load("cifar10", data_dir=tmp_path)
    pys = py_folder(tmp_path / "b", batches, monkeypatch)
    (pys / "data_batch_3").write_bytes(pickle.dumps(Evil()))  # the checksum comes before the unpickler
    with pytest.raises(UsageError, match="data_batch_3 has MD5"):
        load("cifar10", data_dir=pys)


def test_download(batches: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bins = bin_folder(tmp_path / "a" / "cifar-10-batches-bin", batches)
    served = tmp_path / "served"
    served.mkdir()
    path = archive(served / "cifar-10-binary.tar.gz", bins, monkeypatch)
    monkeypatch.setattr(cifar10, "URL", path.as_uri())
    target = tmp_path / "new" / "data"
    download("cifar10", target, None)
    assert [p.name for p in target.iterdir()] == ["cifar-10-binary.tar.gz"]
    check(load("cifar10", data_dir=target), batches)
    path.unlink()
    download("cifar10", target, None)  # it is there: nothing is fetched
    other = tmp_path / "other"
    with pytest.raises(SearchError, match="fetch it by hand"):
        download("cifar10", other, None)
    path.write_bytes(b"something else")
    with pytest.raises(UsageError, match="has MD5"):
        download("cifar10", other, None)
    assert list(other.iterdir()) == []
    with pytest.raises(UsageError, match=r"the address must end in cifar-10-binary.tar.gz or"):
        download("cifar10", other, "https://example.org/cifar.zip")
    with pytest.raises(UsageError, match="task 'digits' has nothing to fetch; it serves: cifar10"):
        download("digits", other, None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tasks", "cifar10"], "task 'cifar10' needs --data-dir"),
        (["--tasks", "cifar10", "--download"], "--download needs --data-dir"),
        (["--tasks", "cifar10", "--download-url", "x"], "--download-url does nothing without --download"),
        (["--tasks", "digits", "--download", "--data-dir", "."], "task 'digits' has nothing to fetch"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "g", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
