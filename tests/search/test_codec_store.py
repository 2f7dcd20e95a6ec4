"""Checkpoints as bytes, and the run's database."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from nos_search.errors import StoreError, UsageError
from nos_search.space import Space
from nos_search.store import Score, Store, Trial
from nos_search.store.codec import pack, unpack
from nos_search.store.tables import Tables

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), inner),
)


@hypothesis.given(st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), plain))
@hypothesis.settings(max_examples=60, derandomize=True)
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


TRIAL = Trial(
    0,
    (1, 2, 3, 0, 0),
    "g",
    "key",
    seed=2**62,
    status="done",
    reward=0.1 + 0.2,
    lr=1e-5,
    curve={"steps": [5], "loss": [0.1], "accuracy": [0.3]},
    batch=0,
    asked=0,
    told=0,
)


CONFIG = {"task": "digits", "strategy": "random", "seed": 1, "space": Space(groups=1).config(), "net": "it's"}


def create(folder: Path) -> Store:
    return Store.create(folder, CONFIG, {"torch": "1"})


def test_round_trip(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.put(replace(TRIAL, status="running", told=None))
        store.put(TRIAL)
        store.put_checkpoint({"x": torch.ones(2)}, told=1)
        store.put(replace(TRIAL, id=1, status="running", told=None))
        store.commit()
    with Store.open(tmp_path / "run") as store:
        assert store.config == CONFIG
        assert store.versions == {"torch": "1"}
        assert store.trials() == [TRIAL, replace(TRIAL, id=1, status="running", told=None)]
        state, told = store.checkpoint()
        assert torch.equal(state["x"], torch.ones(2))
        assert told == 1


def test_what_is_not_committed_is_not_there(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store, Store.open(tmp_path / "run") as reader:
        store.put(TRIAL)
        store.put_checkpoint({"n": 1}, told=1)
        assert reader.trials() == []
        assert reader.checkpoint() is None
        store.commit()
        assert reader.trials() == [TRIAL]
        assert reader.checkpoint() == ({"n": 1}, 1)
        store.put(replace(TRIAL, id=1, told=1))
        store.put_checkpoint({"n": 2}, told=2)
        store.rollback()
        assert store.trials() == reader.trials() == [TRIAL]
        assert store.checkpoint() == ({"n": 1}, 1)


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.put(TRIAL)
        store.commit()
        with pytest.raises(TypeError):
            store.put_checkpoint({"n": object()}, told=1)
        with pytest.raises(ValueError, match="status 'lost' is not one of running, done"):
            store.put(replace(TRIAL, id=1, told=1, status="lost"))
        store.put(replace(TRIAL, id=1))
        with pytest.raises(sqlite3.IntegrityError, match="told"):  # two trials cannot be the same answer
            store.commit()
        store.rollback()
        assert store.trials() == [TRIAL]


def test_scores(tmp_path: Path) -> None:
    score = Score(
        "baseline", "adam", "key", "digits", 3, {"sweep": "full"}, "done", 0.5, 0.1, None, {"loss": [1.5]}, 2.0
    )
    with create(tmp_path / "run") as store:
        assert store.scores("baseline") == []
        for given in (score, replace(score, reward=0.75), replace(score, seed=4), replace(score, purpose="other")):
            store.put_score(given)
        assert store.scores("baseline") == [replace(score, reward=0.75), replace(score, seed=4)]


FORMAT_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (id INTEGER PRIMARY KEY, tokens TEXT NOT NULL, rule TEXT NOT NULL, key TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'diverged', 'rejected', 'duplicate', 'failed')),
  reward REAL, lr REAL, seed INTEGER NOT NULL, duplicate_of INTEGER REFERENCES trial (id), reason TEXT NOT NULL,
  started REAL NOT NULL, seconds REAL NOT NULL, curve TEXT NOT NULL, metrics TEXT NOT NULL);
CREATE INDEX trial_key ON trial (key);
CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), trials INTEGER NOT NULL, state BLOB NOT NULL);
INSERT INTO trial VALUES (0, '[1, 2, 0, 0, 0]', 'g', 'k', 'done', 0.5, 0.1, 7, NULL, '', 1.0, 2.0,
    '{"steps": [5], "accuracy": [1]}', '{}'),
  (1, '[1, 3, 0, 0, 0]', 'w', 'l', 'running', NULL, NULL, 7, NULL, '', 1.5, 0.0, '{}', '{}');
PRAGMA application_id = 0x4E4F5331;
PRAGMA user_version = 1;
"""


def test_runs_of_format_1_are_read_and_brought_up_to_date(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "search.db")
    old.executescript(FORMAT_1)
    old.execute("INSERT INTO meta VALUES ('config', ?), ('versions', '{}')", (json.dumps(CONFIG),))
    old.execute("INSERT INTO checkpoint VALUES (1, 1, ?)", (pack({"n": 1}),))
    old.commit()
    old.close()
    want = [
        Trial(
            0,
            (1, 2, 0, 0, 0),
            "g",
            "k",
            7,
            "done",
            0.5,
            0.1,
            started=1.0,
            seconds=2.0,
            curve={"steps": [5], "accuracy": [1]},
            batch=0,
            asked=0,
            told=0,
        ),
        Trial(1, (1, 3, 0, 0, 0), "w", "l", 7, started=1.5, batch=1, asked=1),
    ]
    with Store.open(tmp_path) as store:  # untouched by readers
        assert (store.trials(), store.scores("baseline"), store.checkpoint()) == (want, [], ({"n": 1}, 1))
    with Store.open(tmp_path, write=True) as store:
        assert (store.trials(), store.scores("baseline"), store.checkpoint()) == (want, [], ({"n": 1}, 1))
        store.put(replace(want[1], told=1, status="failed"))
        store.commit()
    with Store.open(tmp_path) as store:
        assert store.trials()[1].told == 1


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
    with pytest.raises(UsageError, match="is a file or a broken link; name the folder of a run"):
        Store.open(tmp_path / "file")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "search.db").touch()
    for begin in (create, Store.open):  # of which the one must not send to the other
        with pytest.raises(StoreError, match="was stopped before it began; remove the folder and run again"):
            begin(tmp_path / "killed")
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty").close()


def test_one_writer_many_readers(tmp_path: Path) -> None:
    with create(tmp_path / "run") as store:
        store.put(TRIAL)
        store.commit()
        with pytest.raises(StoreError, match=r"is in use by another nos-search, process \d+"):
            Store.open(tmp_path / "run", write=True)
        with Store.open(tmp_path / "run") as reader:
            assert len(reader.trials()) == 1
            assert reader.being_written()
            store.put(replace(TRIAL, id=1, told=1))
            store.commit()
            assert len(reader.trials()) == 2
    with Store.open(tmp_path / "run") as reader:
        assert not reader.being_written()
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
    with pytest.raises(StoreError, match="is damaged, or is not a run of nos-search: file is not a database; restore"):
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
    newer.execute("PRAGMA user_version = 5")
    newer.close()
    with pytest.raises(StoreError, match="has format 5, this release reads up to 4; upgrade"):
        Store.open(tmp_path / "new")

    create(tmp_path / "cut").close()
    path = tmp_path / "cut" / "search.db"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path / "cut", write=True)
    with pytest.raises(StoreError, match="damaged"):  # the lock was given back
        Store.open(tmp_path / "cut", write=True)


def test_who_writes_reads_the_trials_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all of a long run takes many seconds, and a resume asks for its trials again and again."""
    with create(tmp_path / "run") as store:
        store.put(replace(TRIAL, id=0))
        store.commit()
    read: list[str] = []
    rows = Tables.rows

    def counted(tables: Tables, table: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
        read.append(table)
        return rows(tables, table, names)

    monkeypatch.setattr(Tables, "rows", counted)
    with Store.open(tmp_path / "run", write=True) as store:
        store.trials().clear()  # which is the caller's own list
        assert [trial.id for trial in store.trials()] == [0]
        assert read.count("trial") == 1
        store.put(replace(TRIAL, id=1, told=1))
        assert [trial.id for trial in store.trials()] == [0, 1]
        store.rollback()
        assert [trial.id for trial in store.trials()] == [0]
    with Store.open(tmp_path / "run") as reader, Store.open(tmp_path / "run", write=True) as store:
        assert len(reader.trials()) == 1
        store.put(replace(TRIAL, id=1, told=1))
        store.commit()
        assert len(reader.trials()) == 2
