"""Checkpoints as bytes, and the run's database."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from nos_search.codec import pack, unpack
from nos_search.errors import StoreError, UsageError
from nos_search.store import Store, Trial

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), inner),
)


@hypothesis.given(st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), plain))
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
def test_plain_states_survive(state: dict[str, object]) -> None:
    assert unpack(pack(state)) == state


def test_tensors_survive_bit_for_bit() -> None:
    tensors = [
        torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
        torch.tensor(float("nan")),
        torch.empty(0, 2),
        torch.Generator().manual_seed(3).get_state(),
        torch.arange(5, dtype=torch.int64),
    ]
    back = unpack(pack({"deep": [{"x": tensor} for tensor in tensors]}))
    for before, entry in zip(tensors, back["deep"], strict=True):
        after = entry["x"]
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert after.numpy().tobytes() == before.numpy().tobytes()


def test_no_pickle_and_equal_bytes() -> None:
    state = {"a": torch.ones(3), "b": [1, 2.5, "x"]}
    blob = pack(state)
    assert blob == pack(state)
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        assert sorted(archive.namelist()) == ["state.npy", "t0.npy"]
    for wrong in ({"a": object()}, {"a": {1: 2}}, {"$tensor": 1}):
        with pytest.raises(TypeError):
            pack(wrong)


def test_damaged_checkpoints_are_refused() -> None:
    blob = pack({"a": torch.ones(300)})
    for wrong in (b"", b"nonsense", blob[: len(blob) // 2]):
        with pytest.raises(StoreError, match="checkpoint cannot be read"):
            unpack(wrong)


TRIAL = Trial(0, (1, 2, 3), "g", "key", seed=2**62, status="done", reward=0.1 + 0.2, lr=1e-5, curve={"loss": [0.1]})


def create(folder: Path) -> Store:
    return Store.create(folder, {"task": "digits", "name": "it's"}, {"torch": "1"})


def test_round_trip(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.begin(replace(TRIAL, status="running"))
        store.finish(TRIAL, {"x": torch.ones(2)})
        store.begin(replace(TRIAL, id=1, status="running"))
    with Store.open(tmp_path / "run") as store:
        assert store.config == {"task": "digits", "name": "it's"}
        assert store.versions == {"torch": "1"}
        assert store.trials() == [TRIAL, replace(TRIAL, id=1, status="running")]
        assert torch.equal(store.checkpoint()["x"], torch.ones(2))
    with Store.open(tmp_path / "run", write=True) as store:
        assert store.drop_running() == 1
        assert store.trials() == [TRIAL]


def test_trial_and_checkpoint_are_written_together(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.finish(TRIAL, {"n": 1})
        with pytest.raises(TypeError):
            store.finish(replace(TRIAL, id=1), {"n": object()})
        with pytest.raises(sqlite3.IntegrityError):
            store.finish(replace(TRIAL, id=1, status="lost"), {"n": 2})
        assert len(store.trials()) == 1
        assert store.checkpoint() == {"n": 1}


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    create(tmp_path / "run").close()
    with pytest.raises(UsageError, match="already holds a run; continue it with: nos-search resume"):
        create(tmp_path / "run")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty; choose an empty or new folder"):
        create(tmp_path / "papers")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made"):
        create(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty").close()


def test_one_writer_many_readers(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.finish(TRIAL, {})
        with pytest.raises(StoreError, match=r"is in use by another nos-search, process \d+"):
            Store.open(tmp_path / "run", write=True)
        with Store.open(tmp_path / "run") as reader:
            assert len(reader.trials()) == 1
            store.finish(replace(TRIAL, id=1), {})
            assert len(reader.trials()) == 2
    Store.open(tmp_path / "run", write=True).close()


def test_missing_foreign_damaged_and_newer_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; start one with: nos-search run --out"):
        Store.open(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no run"):
        Store.open(tmp_path)

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    (folder("text") / "search.db").write_text("not a database " * 100)
    with pytest.raises(StoreError, match="is not a run of nos-search, or is damaged"):
        Store.open(tmp_path / "text")
    (folder("empty") / "search.db").touch()
    with pytest.raises(StoreError, match="stopped before it began"):
        Store.open(tmp_path / "empty")
    other = sqlite3.connect(folder("other") / "search.db")
    other.execute("CREATE TABLE trials (number INTEGER)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="SQLite file of another program"):
        Store.open(tmp_path / "other", write=True)

    create(tmp_path / "new").close()
    newer = sqlite3.connect(tmp_path / "new" / "search.db")
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(StoreError, match="has format 2, this release reads up to 1; upgrade"):
        Store.open(tmp_path / "new")

    create(tmp_path / "cut").close()
    path = tmp_path / "cut" / "search.db"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path / "cut", write=True)
    with pytest.raises(StoreError, match="damaged"):  # the lock was given back
        Store.open(tmp_path / "cut", write=True)
