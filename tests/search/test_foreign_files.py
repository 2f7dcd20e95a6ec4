"""A run folder whose files are not what they seem: nothing outside it is read, written or waited for, and no machine
that only the folder names is reached."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nos_search import rules
from nos_search.cli import main
from nos_search.errors import SearchError, StoreError, UsageError
from nos_search.escape import shell
from nos_search.run.config import RunConfig
from nos_search.store import Store, files, lock
from nos_search.store.place import FILES
from tests.faults.store import assert_one_line, copy_of, forge
from tests.fresh import python

from .conftest import NURSERY, StubExecutor, stub_search
from .test_loop import config

PRECIOUS = "precious\n" * 50
NAMES = ["run", "x; touch owned", 'it\'s "my" run', "n\nl", "-rf", "\x1b[2Jred", "r\u00fcn"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "run"
    stub_search(folder, config(trials=40), StubExecutor())
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    return copy_of(run, tmp_path / "copy")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(PRECIOUS)
    return path


def hot_journal(db: Path, victim: Path) -> bytes:
    """A rollback journal as of a transaction over several files, whose list is `victim`: SQLite deletes that at last.
    https://www.sqlite.org/fileformat2.html#the_rollback_journal
    """
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">iIIII", 0, 1, db.stat().st_size // 4096, 512, 4096)
    name = os.fsencode(victim)
    page, size, total = 0x40000000 // 4096 + 1, len(name), sum(name)
    return header.ljust(512, b"\0") + struct.pack(">I", page) + name + struct.pack(">II", size, total) + magic


# --- what is opened --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [True, False])
def test_a_journal_deletes_no_file(folder: Path, victim: Path, write: bool) -> None:
    journal = folder / "search.db-journal"
    journal.write_bytes(hot_journal(folder / "search.db", victim))
    (folder / "search.db-wal").unlink(missing_ok=True)
    with pytest.raises(StoreError, match=r"search\.db-journal does not belong in a run") as caught:
        Store.open(folder, write=write)
    assert_one_line(caught.value)
    assert victim.read_text() == PRECIOUS
    words = shlex.split(str(caught.value).rpartition(": ")[2])
    assert words == ["rm", str(journal)]
    journal.unlink()
    with Store.open(folder, write=write) as store:
        assert len(store.trials()) == 40


def test_the_journal_of_the_test_is_one_that_sqlite_obeys(folder: Path, victim: Path) -> None:
    (folder / "search.db-journal").write_bytes(hot_journal(folder / "search.db", victim))
    with closing(sqlite3.connect(folder / "search.db")) as db:
        db.execute("SELECT count(*) FROM sqlite_master")
    assert not victim.exists()


def test_whoever_writes_makes_no_journal(folder: Path) -> None:
    """A file that somebody converted is brought back to the log, or a killed resume would leave a journal."""
    with closing(sqlite3.connect(folder / "search.db")) as db:
        assert db.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    with Store.open(folder, write=True) as store:
        store.set_state("running")
        assert not (folder / "search.db-journal").exists()
        assert (folder / "search.db-wal").exists()


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def second_name(path: Path, victim: Path) -> None:
    os.link(victim, path)


@pytest.mark.parametrize("make", [link, second_name])
@pytest.mark.parametrize("name", FILES)
def test_nothing_is_written_through_another_name(
    folder: Path, victim: Path, name: str, make: Callable[[Path, Path], None]
) -> None:
    if name == "search.db":
        (folder / name).replace(victim)
    before = victim.read_bytes()
    (folder / name).unlink(missing_ok=True)
    make(folder / name, victim)
    for write in (True, False):
        with pytest.raises(StoreError, match=f"{name} is not a plain file of its own") as caught:
            Store.open(folder, write=write)
        assert_one_line(caught.value)
    assert victim.read_bytes() == before


@pytest.mark.parametrize("make", [link, second_name])
def test_the_lock_itself_is_not_taken_through_another_name(
    tmp_path: Path, victim: Path, make: Callable[[Path, Path], None]
) -> None:
    """Should the file be put there between the look and the lock."""
    make(tmp_path / lock.LOCK, victim)
    with pytest.raises((StoreError, OSError)):
        lock.take(tmp_path)
    assert victim.read_text() == PRECIOUS


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_keeps_nobody_waiting(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    done = python("import sys; from nos_search.__main__ import run; sys.exit(run())", "show", folder, imports=NURSERY)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{name} is not a plain file of its own: it is a link, pipe or the like" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what is written into the folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("report.html", ["report", "--no-baselines"]),
        ("optuna.log", ["export", "--format", "optuna", "--force"]),
        ("tensorboard", ["resume", "--tensorboard", "--trials", "41"]),
        ("wandb", ["resume", "--log", "wandb", "--trials", "41"]),
        ("mlflow", ["resume", "--log", "mlflow", "--trials", "41"]),
    ],
)
@pytest.mark.parametrize("kind", ["file", "absent", "folder", "pipe"])
def test_defaults_are_written_through_no_link(
    folder: Path,
    tmp_path: Path,
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    arguments: list[str],
    kind: str,
) -> None:
    for package in ("tensorboard.summary_writer", "wandb.package", "mlflow.package"):  # which may not be installed
        monkeypatch.setattr(f"nos_search.show.{package}", lambda: None)
    monkeypatch.setattr("nos_search.cli.search.make_executor", lambda *_, **__: StubExecutor())
    target = tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(victim if kind == "file" else target)
    if kind == "folder":
        target.mkdir()
    command, *options = arguments
    assert main([command, str(folder), *options]) == 1
    err = capsys.readouterr().err
    assert f"{name} is a link, pipe or device, through which nothing is written; remove it, or" in err
    assert victim.read_text() == PRECIOUS
    assert target.exists() == (kind == "folder")
    assert kind != "folder" or not [*target.iterdir()]


def test_a_link_that_the_user_names_is_followed(folder: Path, tmp_path: Path, victim: Path) -> None:
    (tmp_path / "page").symlink_to(victim)
    assert main(["report", str(folder), "--no-baselines", "--out", str(tmp_path / "page")]) == 0
    assert victim.read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "page").is_symlink()


def test_files_and_folders_inside_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder", "none"):
        assert files.inside(tmp_path, name, remedy="") == str(tmp_path / name)


# --- what is reached -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ray://evil.example:10001", "10.0.0.1:6379", "evil", ""])
def test_a_cluster_is_the_users_choice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    reached: list[str | None] = []

    def remember(config: RunConfig, *_: object, **__: object) -> StubExecutor:
        reached.append(config.ray_address)
        return StubExecutor()

    monkeypatch.setattr("nos_search.cli.search.make_executor", remember)
    with Store.open(folder) as store:
        stored = store.config
    forge(folder, "meta", {"value": json.dumps({**stored, "executor": "ray", "ray_address": address})}, "name='config'")
    before = (folder / "search.db").read_bytes()
    assert main(["resume", str(folder), "--trials", "41"]) == 2
    assert "--ray-address ADDRESS" in capsys.readouterr().err
    assert not reached
    assert (folder / "search.db").read_bytes() == before
    assert main(["resume", str(folder), "--trials", "41", "--ray-address", "mine:6379"]) == 0
    assert reached == ["mine:6379"]


@pytest.mark.parametrize("address", [None, "auto", "local"])
def test_a_cluster_of_this_machine_is_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setattr("nos_search.cli.search.make_executor", lambda *_, **__: StubExecutor())
    with Store.open(folder) as store:
        stored = store.config
    forge(folder, "meta", {"value": json.dumps({**stored, "executor": "ray", "ray_address": address})}, "name='config'")
    assert main(["resume", str(folder), "--trials", "41"]) == 0


# --- what is said ----------------------------------------------------------------------------------------------------


def suggested(error: SearchError) -> list[str]:
    """The command at the end of the message, as a shell takes it."""
    text = str(error)
    assert text.isprintable(), ascii(text)
    command = text[text.rindex(": ") + 2 :]
    return shlex.split(command)


@pytest.mark.parametrize("name", NAMES)
def test_suggested_commands_name_the_folder_on_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, plain = Path(name), name.isprintable()
    word = shlex.split(shell(folder))
    with pytest.raises(UsageError) as caught:
        Store.open(folder)
    assert suggested(caught.value) == ["nos-search", "run", "--out", *word]
    copy_of(run, folder)
    with pytest.raises(UsageError) as caught:
        Store.create(folder, {}, {})
    assert suggested(caught.value) == ["nos-search", "resume", *word]
    assert not plain or word == [f"./{name}" if name.startswith("-") else name]
    (folder / "search.db-journal").write_text("")
    with pytest.raises(StoreError) as store_error:
        Store.open(folder)
    assert suggested(store_error.value) == ["rm", *shlex.split(shell(folder / "search.db-journal"))]


@pytest.mark.parametrize("rule", ["", "(" * 60_000, "g + " * 15_000 + "g", "x" * 60_000, "9" * 60_000, "g +"])
@pytest.mark.parametrize("command", [["export"], ["evaluate", "--top", "99", "--seeds", "1"]])
def test_a_stored_rule_that_is_none_is_one_short_line(
    folder: Path, capsys: pytest.CaptureFixture[str], rule: str, command: list[str]
) -> None:
    with Store.open(folder) as store:
        best = max((t for t in store.trials() if t.status == "done"), key=lambda t: (t.reward or 0.0, -t.id))
    forge(folder, "trial", {"rule": rule}, f"id = {best.id}")
    assert main([command[0], str(folder), *command[1:]]) == 1
    err = capsys.readouterr().err
    assert f"run folder {folder} is damaged: the rule of trial {best.id} is none (" in err
    assert len(err.splitlines()) == 1
    assert "\\n" not in err  # nor are there lines in disguise
    assert len(err) < 600 + len(str(folder))


def test_a_stored_operand_is_not_the_library_rule_of_that_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = rules.parse_stored_rule("adam", folder, 0)
    assert stored.key == rules.compile_rule("(adam)").key != rules.compile_rule("adam").key
    assert stored.is_update
    with Store.open(folder) as store:
        best = max((t for t in store.trials() if t.status == "done"), key=lambda t: (t.reward or 0.0, -t.id))
    forge(folder, "trial", {"rule": "adam"}, f"id = {best.id}")
    assert main(["export", str(folder)]) == 0
    assert "# update u = (adam), p <- p - lr * u" in capsys.readouterr().out


def test_a_rule_of_the_command_line_is_shown_as_far_as_it_can_be_taken_in() -> None:
    with pytest.raises(UsageError) as caught:
        rules.parse_rule_argument("g+" * 30_000)
    assert len(str(caught.value)) < 600
    with pytest.raises(UsageError, match=r"(?s)rule 'g \+' is not valid: .*\^"):
        rules.parse_rule_argument("g +")


def test_a_disk_that_is_full_at_the_start_leaves_nothing_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "PRAGMA max_page_count = 1;\n"
    from nos_search.store import layout

    statements = layout.steps(0)
    monkeypatch.setattr("nos_search.store.layout.steps", lambda version: limit + statements)
    with pytest.raises(StoreError, match=r"the disk is full; make room, then start the run again$"):
        Store.create(tmp_path / "run", config().to_json(), {})
    assert not (tmp_path / "run").exists()


def test_a_flipped_bit_in_the_files_mark_has_a_remedy(folder: Path) -> None:
    data = bytearray((folder / "search.db").read_bytes())
    data[68] ^= 1  # of the application id
    (folder / "search.db").write_bytes(data)
    (folder / "search.db-wal").unlink(missing_ok=True)
    with pytest.raises(StoreError, match="or its first page is damaged; restore the folder from a copy, or choose"):
        Store.open(folder)


def test_a_run_that_is_stopped_as_it_begins_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(version: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("nos_search.store.layout.steps", stop)
    with pytest.raises(KeyboardInterrupt):
        Store.create(tmp_path / "run", config().to_json(), {})
    assert not (tmp_path / "run").exists()
