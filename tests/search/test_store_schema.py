"""A run folder that somebody else made: whatever stands in it, a reader gets plain values or one line that refuses it."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nos_search.bounds import MOST
from nos_search.cli import main
from nos_search.errors import SearchError, StoreError, UsageError
from nos_search.run.config import RunConfig
from nos_search.show.csv_tables import trials_csv
from nos_search.show.report import render
from nos_search.store import Score, Store, Trial, clean
from nos_search.store.codec import unpack
from nos_search.store.relations import YEAR_9999
from nos_search.store.schema import CONFIG, NEEDED, SCORE, TRIAL
from nos_search.store.tables import COLUMNS
from tests.faults.store import assert_one_line, copy_of, forge, seen

from .conftest import StubExecutor, stub_search
from .test_loop import LADDER, config

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
STRINGS = [
    ESCAPE,
    "digits\nimport os; os.system('x')",
    '"><script>alert(1)</script>',
    "=cmd|' /C calc'!A0",
    "\u202egnp.exe",
    "x" * 70000,
    "\x00",
    "",
]
NUMBERS: list[Any] = [-1, -0.5, 1e999, 0.5, "7; DROP TABLE trial", b"\x80\x81", None]
JSONS = [
    "[",
    "[" * 100_000,
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": 1' + "0" * 400 + "}",
    '{"\\u001b[2J": 1}',
    '["\\ud800"]',
    "null",
    "7",
    '"text"',
    '{"steps": [1, 2], "accuracy": [0.5]}',
    '{"sweep": [{"lr": "x"}]}',
    '{"trial": "x", "rung": 1}',
    '{"static": {"passed": 1, "seconds": 0}}',
    "[-1, 0, 0, 0, 0]",
    "[999, 0, 0, 0, 0]",
    "[1]",
    '{"x": {"x": {"x": {"x": {"x": {"x": {"x": {"x": {"x": {}}}}}}}}}}',
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with trials of every status and promotions."""
    folder = tmp_path_factory.mktemp("schema") / "run"
    stub_search(folder, config(trials=150, **LADDER), StubExecutor(lambda job: "no" if job.number % 20 == 7 else None))
    return folder


def test_the_tables_have_a_row_for_every_field() -> None:
    assert list(TRIAL) == [entry.name for entry in fields(Trial)]
    assert list(SCORE) == [entry.name for entry in fields(Score)]
    assert list(CONFIG) == [entry.name for entry in fields(RunConfig)]


def test_what_the_search_writes_is_what_may_be_read(run: Path) -> None:
    with Store.open(run, write=True) as store:
        assert {trial.status for trial in store.trials()} >= {"done", "diverged", "rejected", "duplicate", "failed"}
        store.check()


def refused_or_plain(folder: Path) -> bool:
    """Whether it was refused. What was read holds no character that a terminal obeys, and only finite numbers."""
    try:
        told = seen(folder)
    except SearchError as error:
        assert_one_line(error)
        return True
    text = json.dumps(told, allow_nan=False, ensure_ascii=False).replace("\\n", "").replace("\\t", "")
    assert text.isprintable(), ascii(text)
    return False


# Where such a text could stand in a run of ours: somebody's words, shown escaped.
FREE = {("trial", "reason"), ("trial", "key"), ("trial", "worker"), ("score", "key"), ("score", "task")}
HARMLESS = {'"><script>alert(1)</script>', "=cmd|' /C calc'!A0", ""}


@pytest.mark.slow
@pytest.mark.parametrize("table", ["trial", "score"])
def test_hostile_values_in_every_column(run: Path, tmp_path: Path, table: str) -> None:
    for name, kind in {"trial": TRIAL, "score": SCORE}[table].items():
        for value in {"TEXT": STRINGS, "JSON": JSONS + STRINGS}.get(kind.sql, NUMBERS + STRINGS):
            folder = copy_of(run, tmp_path / "forged")
            try:
                forge(folder, table, {name: value}, "status = 'done'")
            except (sqlite3.IntegrityError, OverflowError):
                continue  # SQLite itself does not take it there
            refused = refused_or_plain(folder)
            if kind.sql == "TEXT" and (table, name) not in FREE and not (name == "rule" and not value):
                assert refused or not value, (name, value)
            elif name == "reason" and value == STRINGS[1]:
                assert not refused  # its lines are lines
            elif (kind.sql == "TEXT" and value not in HARMLESS) or name in ("tokens", "id", "seed", "gates"):
                assert refused, (name, value)


@pytest.mark.parametrize("name", ["task", "strategy", "seed", "sweep", "executor", "device", "net", "promote", "batch"])
def test_hostile_values_in_every_setting(run: Path, tmp_path: Path, name: str) -> None:
    with Store.open(run) as store:
        good = store.config
    for value in [*STRINGS, *NUMBERS[:4], [], {}, [ESCAPE], True]:
        folder = copy_of(run, tmp_path / "forged")
        forge(folder, "meta", {"value": json.dumps({**good, name: value})}, "name = 'config'")
        refused = refused_or_plain(folder)
        if name in ("task", "strategy", "seed", "sweep") or not isinstance(value, str):
            assert refused, value


def test_hostile_configurations(run: Path, tmp_path: Path) -> None:
    with Store.open(run) as store:
        good = store.config
    space = good["space"]
    for wrong in [
        *JSONS,
        *(json.dumps({k: v for k, v in good.items() if k != name}) for name in ("task", "strategy", "seed", "space")),
        *(
            json.dumps({**good, "space": value})
            for value in (
                7,
                {},
                {**space, "groups": "1"},
                {**space, "groups": 99},
                {**space, "vocabulary": ESCAPE},
                {**space, "vocabulary": "unknown"},
                {**space, "options": None},
                {**space, "kind": "other"},
                {"kind": "program", "lines": 10**9},
                {"kind": "program", "lines": 5, "vocabulary": 7},
                {"kind": "program", "lines": 5, "vocabulary": ESCAPE},
                {"kind": "program", "lines": 5, "vocabulary": "lion"},
                {"kind": "lion", "lines": 5},
            )
        ),
        json.dumps({**good, "gates": {"steps": "x"}}),
        json.dumps({**good, "strategy_options": {"lr": {"deep": 1}}}),
        json.dumps({**good, "strategy_options": {ESCAPE: 1}}),
        json.dumps({**good, "added later": 1}),
        json.dumps({**good, "added_later": ESCAPE}),
    ]:
        for name in ("config", "versions") if wrong in JSONS else ("config",):
            folder = copy_of(run, tmp_path / "forged")
            forge(folder, "meta", {"value": wrong}, f"name = '{name}'")
            with pytest.raises(StoreError) as caught:
                seen(folder)
            assert_one_line(caught.value)
    folder = copy_of(run, tmp_path / "forged")
    forge(folder, "meta", {"value": json.dumps({**good, "added_later": 1})}, "name = 'config'")
    assert seen(folder)["config"]["added_later"] == 1
    for state in ('"gone"', "7", "[", json.dumps(ESCAPE)):
        forge(folder, "meta", {"value": state}, "name = 'state'")
        with pytest.raises(StoreError):
            seen(folder)


@pytest.mark.parametrize(("name", "option"), [("threads", "--threads"), ("workers", "--workers"), ("batch", "--batch")])
def test_a_forged_setting_is_as_bounded_as_its_option(
    run: Path, tmp_path: Path, name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(run, tmp_path / "forged")
    with Store.open(run) as store:
        value = json.dumps({**store.config, name: 2**62})
    forge(folder, "meta", {"value": value}, "name = 'config'")
    assert main(["resume", str(folder)]) == 2
    said = f"{option} {2**62} is above {MOST[option]}; choose a smaller number"
    assert capsys.readouterr() == ("", f"nos-search resume: {said}\n")


def test_settings_that_a_release_did_not_have_may_be_missing(run: Path, tmp_path: Path) -> None:
    """One by one and all at once; every reader goes on."""
    with Store.open(run) as store:
        good = store.config
    optional = good.keys() - set(NEEDED)
    assert "strategy_options" in optional
    for gone in (*({name} for name in sorted(optional)), optional):
        folder = copy_of(run, tmp_path / "older")
        forge(folder, "meta", {"value": json.dumps({k: good[k] for k in good if k not in gone})}, "name = 'config'")
        assert seen(folder)["config"].keys() == good.keys() - gone
        with Store.open(folder) as store:
            assert "</html>" in render(store)
            assert len(trials_csv(store).splitlines()) > 1
            RunConfig.from_json(store.config).make_strategy()


def test_settings_that_could_not_be_read_back_are_refused(run: Path, tmp_path: Path) -> None:
    good = config().to_json()
    with pytest.raises(UsageError, match=r"config: data_dir .* is not one line of plain text"):
        Store.create(tmp_path / "new", {**good, "data_dir": ESCAPE}, {})
    assert not (tmp_path / "new").exists()
    with Store.open(copy_of(run, tmp_path / "run"), write=True) as store:
        before = store.config
        with pytest.raises(UsageError, match="config: ray_address"):
            store.set_config({**before, "ray_address": "x\ny"})
        assert store.config == before
    assert seen(tmp_path / "run")["config"] == before


@pytest.mark.parametrize(
    ("table", "changes", "where", "message"),
    [
        ("trial", {"told": None}, "status = 'done'", "has a gap"),
        ("trial", {"told": 4000}, "status = 'done'", r"the order of the answers \(told\) has a gap"),
        ("trial", {"id": 4000}, "status = 'rejected'", "the numbers of the trials have a gap"),
        ("trial", {"status": "rejected"}, "told IS NULL", "status rejected with told None"),
        ("trial", {"duplicate_of": 3}, "status = 'done'", "status done with duplicate_of 3"),
        ("trial", {"duplicate_of": 4000}, "status = 'duplicate'", "duplicate_of 4000, which was not trained"),
        ("trial", {"family": 3}, "status = 'rejected'", "status rejected with family 3"),
        ("trial", {"family": 4000}, "status = 'done'", "family 4000, of which that trial is not the first"),
        ("trial", {"reward": None}, "status = 'done'", "status done without reward, lr or learning curve"),
        ("trial", {"started": YEAR_9999, "seconds": YEAR_9999}, "status = 'done'", "beyond all dates"),
        ("trial", {"curve": "{}"}, "status = 'done'", "status done without reward, lr or learning curve"),
        ("score", {"budget": '{"rung": 1}'}, "1", "does not name trial and rung"),
        ("score", {"budget": '{"trial": 3, "rung": 7}'}, "1", "trial 3 was promoted to rung 7 from rung 0"),
    ],
)
def test_values_that_do_not_fit_each_other(
    run: Path, tmp_path: Path, table: str, changes: dict[str, Any], where: str, message: str
) -> None:
    folder = copy_of(run, tmp_path / "forged")
    forge(folder, table, changes, where)
    with pytest.raises(StoreError, match=message):
        seen(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW extra AS SELECT 1",
        "CREATE TRIGGER boom AFTER UPDATE ON meta BEGIN DELETE FROM trial; END",
        "ALTER TABLE trial ADD COLUMN sum INTEGER AS (id + 1)",
        f"PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = '{ESCAPE}' WHERE name = 'score'",
        f"PRAGMA writable_schema = ON; UPDATE sqlite_master SET name = '{ESCAPE}' WHERE name = 'trial_key'",
        "DROP TABLE score",
        "DROP TABLE seal",
        "PRAGMA user_version = 3",
        "PRAGMA user_version = 2",
        "PRAGMA user_version = 0",
    ],
)
def test_tables_that_are_not_a_runs(run: Path, tmp_path: Path, statement: str) -> None:
    folder = copy_of(run, tmp_path / "forged")
    db = sqlite3.connect(folder / "search.db")
    db.executescript(statement)
    db.close()
    with pytest.raises(StoreError) as caught:
        seen(folder)
    assert_one_line(caught.value)


def test_names_that_are_no_text(run: Path, tmp_path: Path) -> None:
    """SQLite names the table in its error, and sqlite3 fails at the name."""
    folder = copy_of(run, tmp_path / "forged")
    data = (folder / "search.db").read_bytes()
    assert data.count(b"tablescorescore") == 1
    broken = data.replace(b"tablescorescore", b"tablescor\xe9score").replace(
        b"CREATE TABLE score", b"CREATE XABLE score"
    )
    (folder / "search.db").write_bytes(broken)
    with pytest.raises(StoreError) as caught:
        seen(folder)
    assert_one_line(caught.value)


def test_checkpoints_cannot_ask_for_any_amount_of_memory() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state.npy", b"\x93NUMPY" + b"0" * 10_000_000)
    with pytest.raises(StoreError, match="compressed"):
        unpack(stream.getvalue())


def test_foreign_checkpoints(run: Path, tmp_path: Path) -> None:
    """The state of a strategy goes to the strategy, which need not foresee what others put there."""
    from nos_search.store.codec import pack

    with Store.open(run) as store:
        state, told = store.checkpoint()
    for wrong in (
        b"PK",
        pack({}),
        pack({"strategy": ESCAPE}),
        pack({**state, "asked": "many"}),
        pack({**state, "open": [[0, [1]]]}),
        pack({**state, "asked": 3}),
        pack({**state, "generator": [1]}),
        pack({k: v for k, v in state.items() if k != "generator"}),
    ):
        folder = copy_of(run, tmp_path / "forged")
        forge(folder, "checkpoint", {"state": wrong, "trials": told})
        with pytest.raises(SearchError) as caught:
            stub_search(folder, config(trials=150, **LADDER), StubExecutor())
        assert_one_line(caught.value)


def test_words_of_any_origin_are_kept_readable(tmp_path: Path) -> None:
    """The error of a training may hold anything; it must not make the run unreadable."""
    reason = f"{ESCAPE} first\nsecond \ud800 \u202e {'x' * 100_000}"
    stub_search(tmp_path / "run", config(), StubExecutor(lambda job: reason if job.number % 9 == 0 else None))
    with Store.open(tmp_path / "run") as store:
        failed = [trial.reason for trial in store.trials() if trial.status == "failed"]
    assert failed
    assert {*failed} == {clean(reason)}
    assert "first\nsecond" in failed[0]
    assert len(failed[0]) == 65536


def test_columns_of_the_file_are_those_of_the_tables(run: Path) -> None:
    db = sqlite3.connect(run / "search.db")
    for table, names in COLUMNS.items():
        found = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        assert found == {*names, "seal"}
    db.close()
