"""Streams and files that fail: closed, full, without a reader, ASCII; names that are too long; results are not lost."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import torch

from nos_search.cli import main
from nos_search.cli.output import Quiet
from nos_search.errors import SearchError, StoreError, UsageError
from nos_search.store import Store, files
from tests.waiting import HUNG

from .conftest import command, environment

TINY = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]
LONG = "x" * 300


def lines(small_run: Path) -> list[list[str]]:
    """A call of every command that prints a result soon."""
    return [
        ["show", str(small_run)],
        ["show", str(small_run), "--json"],
        ["evaluate", "g", "--seeds", "2", *TINY],
        ["train", "g", "--lr", "0.1", *TINY],
        ["prove", "g", "--against", "g", "--tasks", "digits", "--quick", "--tuning", "1", "--workers", "1", *TINY[2:]],
        ["export", str(small_run)],
        ["export", str(small_run), "--format", "csv"],
        ["surfaces", "g", "--steps", "3"],
        ["space"],
        ["bench"],
        ["--version"],
        ["--help"],
        ["show", "--help"],
    ]


def call(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as leave:
        return int(leave.code or 0)


def writer(number: int, encoding: str = "utf-8") -> IO[str]:
    return os.fdopen(number, "w", encoding=encoding)


def test_a_full_disk_behind_stdout(
    small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for line in lines(small_run):
        monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115
        assert call(line) == 1, line
        last = capsys.readouterr().err.splitlines()[-1]
        assert "stdout cannot be written: No space left on device" in last
        assert ("the result is in" in last) == (line[0] in ("evaluate", "train", "prove"))
        if "the result is in" in last:
            kept = Path(last.rpartition(" ")[2])
            assert ("no difference" if line[0] == "prove" else "validation") in kept.read_text(encoding="utf-8")
        sys.stdout.close()  # what Python does at the end must not fail again


def test_a_reader_that_goes_away(
    small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in lines(small_run):
        reader, end = os.pipe()
        os.close(reader)
        monkeypatch.setattr(sys, "stdout", writer(end))
        assert call(line) == 1, line
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert "Broken pipe" not in err
        sys.stdout.close()


@pytest.mark.parametrize("encoding", ["ascii", "koi8-r"])
def test_encodings_without_the_characters(
    small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    for line in lines(small_run):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        assert call(line) == 0, (line, capsys.readouterr().err)
        text = raw.getvalue().decode(encoding)
        if line[0] in ("evaluate", "prove"):
            assert " +- " in text or " ± " in text
        assert text.strip()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """A closed stream's number must not become the database's: what libraries print would go into it."""
    folder = tmp_path / "run"
    words = command("run", "--task", "digits", "--trials", 3, "--seed", 3, "--out", folder, *TINY)
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "x", *words], capture_output=True, text=True, env=environment(), timeout=HUNG
    )
    assert done.returncode == (1 if closed.startswith(">") else 0), done.stderr
    assert "Traceback" not in done.stderr
    if closed == ">&-":
        assert done.stderr.splitlines()[-1] == "nos-search run: stdout cannot be written: it is closed"
    if closed == "2>&-":
        assert "trials 3:" in done.stdout
    with Store.open(folder) as store:
        assert len([trial for trial in store.trials() if trial.told is not None]) == 3


def test_numbers_of_closed_streams_are_taken() -> None:
    code = (
        "import os, sys\n"
        "from nos_search.cli.output import settle_streams\n"
        "settle_streams()\n"
        "sys.stderr.write('dropped')\n"
        "sys.exit(os.open('/', os.O_RDONLY))\n"  # the number that the next file gets
    )
    words = ["bash", "-c", '"$@" <&- >&- 2>&-', "x", sys.executable, "-c", code]
    assert subprocess.run(words, env=environment(), timeout=HUNG).returncode > 2


def test_progress_that_cannot_be_shown_is_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, name in enumerate(("/dev/full", "closed")):
        stream = open("/dev/full", "w") if k == 0 else io.StringIO()  # noqa: SIM115
        if name == "closed":
            stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        assert (
            main(["run", "--task", "digits", "--trials", "3", "--seed", "3", "--out", str(tmp_path / str(k)), *TINY])
            == 0
        )
        assert "trials 3:" in capsys.readouterr().out
    assert Quiet(sys.stderr).write("abc") == 3


def test_names_that_are_too_long(small_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for line in (
        ["show", LONG],
        ["resume", LONG],
        ["report", LONG],
        ["export", LONG],
        ["evaluate", LONG],
        ["run", "--out", LONG],
        ["report", str(small_run), "--no-baselines", "--out", LONG],
        ["report", str(small_run), "--no-baselines", "--out", f"{tmp_path}/{LONG}/x"],
        ["export", str(small_run), "--out", LONG],
        ["export", str(small_run), "--format", "csv", "--out", LONG],
        ["evaluate", "g", "--out", LONG],
        ["evaluate", "g", "--plot", LONG],
        ["prove", "g", "--plot", LONG],
        ["prove", "g", "--html", LONG],
        ["train", "g", "--plot", LONG],
        ["train", "g", "--data-dir", LONG],
        ["surfaces", "g", "--plot", LONG],
        ["surfaces", "g", "--plot", "figure.jpg"],
    ):
        assert call(line) in (1, 2), line
        out, err = capsys.readouterr()
        assert out == ""
        assert re.match(r"nos-search \w+: ", err), line
        assert re.search(r"; choose |; leave |\^$", err.strip()), (line, err)  # what to do about it, or the place
        assert len(err.splitlines()) == (3 if line in (["export", LONG], ["evaluate", LONG]) else 1), (
            err
        )  # with a caret
    assert list(Path().glob("x" * 20 + "*")) == []


def test_a_long_rule_is_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    rule = "g" + " + 0.001 * g" * 30
    assert main(["export", rule]) == 0
    assert rule in capsys.readouterr().out


# --- files that commands write -----------------------------------------------------------------------------------------


def test_export_replaces_nothing_unasked(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("my work")
    for form in ("torch", "csv", "curves", "optuna"):
        words = ["export", str(small_run), "--format", form, "--out", str(path)]
        assert main(words) == 2
        assert f"--out {path} exists; choose another file, or add --force to replace it" in capsys.readouterr().err
        assert path.read_text() == "my work"
    assert main(["export", "g", "--force", "--out", str(path)]) == 0
    assert "torch.optim.Optimizer" in path.read_text()
    (tmp_path / "link").symlink_to(tmp_path / "not there")
    assert main(["export", "g", "--out", str(tmp_path / "link")]) == 2


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    os.chmod(path, 0o604)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SearchError, match=r"--out .*page.html cannot be written: No space left") as error:
        files.write("--out", path, "after")
    assert error.value.exit_status == 1
    assert (path.read_text(), [entry.name for entry in tmp_path.iterdir()]) == ("before", ["page.html"])
    monkeypatch.undo()
    files.write("--out", path, "after\u2028\u00b1")
    assert path.read_bytes() == "after\u2028\u00b1".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    (tmp_path / "link").symlink_to(path)
    files.write("--out", tmp_path / "link", "through the link")
    assert (tmp_path / "link").is_symlink()
    assert path.read_text() == "through the link"
    files.write("--out", "/dev/null", "devices are written to, not replaced")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    for name in (tmp_path, tmp_path / "no" / "x", path / "x", tmp_path / LONG):
        with pytest.raises(UsageError, match=r"--plot .* cannot be written"):
            files.check_place("--plot", str(name))
        with pytest.raises(UsageError, match=r"--plot .* cannot be written"):
            files.write("--plot", name, "")


def test_suggested_commands_are_quoted_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a 'run' & more"
    assert main(["run", "--task", "digits", "--trials", "2", "--seed", "3", "--out", str(folder), *TINY]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    said = line.partition("continue with: ")[2].removesuffix(" --trials N")
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {said}"], capture_output=True, text=True, check=True).stdout
    assert shown == f"nos-search\nresume\n{folder}\n"


def no_memory() -> list[RuntimeError]:
    """What torch raises when there is none."""
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return [error, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
    raise AssertionError("the test has four petabytes of memory")


# --- errors that are nobody's argument ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device", "/data/x\n\x1b[2J"),
            r"/data/x\n\x1b[2J: No space left on device; free some space, or choose another disk",
        ),
        (
            PermissionError(13, "Permission denied"),
            "Permission denied; choose another place, or change its permissions",
        ),
        (OSError(5, "Input/output error"), "Input/output error"),
        (sqlite3.OperationalError("disk I/O error"), "the run's database failed: disk I/O error"),
        *((error, "out of memory; choose smaller sizes, or fewer workers") for error in (MemoryError(), *no_memory())),
        (StoreError("it is damaged\x07; copy it back"), r"it is damaged\x07; copy it back"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_foreign_causes_are_one_line(
    small_run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Store, "open", fail)
    for name in ("show", "resume", "report", "export", "evaluate", "prove"):
        assert main([name, str(small_run)]) == 1
        assert capsys.readouterr() == ("", f"nos-search {name}: {said}\n")


def test_other_errors_of_a_runtime_are_not_called_out_of_memory(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Store, "open", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["show", str(small_run)])


def test_ctrl_c_anywhere_is_130(
    small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("trials", "open"):
        monkeypatch.setattr(Store, name, stop)
        assert main(["show", str(small_run)]) == 130
        assert capsys.readouterr() == ("", "nos-search show: interrupted\n")


def test_a_report_of_a_run_that_cannot_be_written_to(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known optimizers go into the store; where that cannot be, the page has the others."""
    real = Store.open

    def read_only(folder: Path, *, write: bool = False) -> Store:
        if write:
            raise StoreError(f"{folder} is on read-only media")
        return real(folder)

    monkeypatch.setattr(Store, "open", read_only)
    out = tmp_path / "page.html"
    assert main(["report", str(small_run), "--out", str(out)]) == 0
    shown, err = capsys.readouterr()
    assert shown == f"{out}\n"
    assert err == f"note: known optimizers that were not trained yet are left out: {small_run} is on read-only media\n"
    assert "Not trained yet: Adam" in out.read_text()
