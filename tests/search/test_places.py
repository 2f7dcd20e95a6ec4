"""Files that commands are told to write: what must not be overwritten is refused before anything is trained."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nos_search.cli import main

from .conftest import command, environment

PROOF = ["--tasks", "digits", "--train-steps", "2", "--seeds", "3", "--workers", "1"]
SMALL = [*PROOF, "--sweep-steps", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evaluate", "g", "--plot", "a.svg", "--out", "a.svg"],
            "--out and --plot are one file, a.svg; choose another",
        ),
        (["evaluate", "g", "--plot", "./b/../a.svg", "--out", "a.svg"], "--out and --plot are one file, ./b/../a.svg"),
        (["prove", "g", "--html", "a.svg", "--plot", "a.svg"], "--html and --plot are one file, a.svg; choose another"),
        (["prove", "g", "--out", "b", "--html", "b/proof.json"], "--html b/proof.json is among the trainings of --out"),
        (["prove", "g", "--executor", "slurm"], "--executor 'slurm' is not known"),
    ],
)
def test_nothing_is_written_twice(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    assert main([*words, *(PROOF if words[0] == "prove" else SMALL)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "trainings" not in err.replace(message, "")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("words", [["report", "--no-baselines"], ["export", "--format", "csv", "--force"]])
def test_a_run_is_not_overwritten(
    words: list[str], small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    assert main([words[0], str(folder), *words[1:], "--out", str(folder / "search.db")]) == 2
    assert "cannot be written: it is a database, as a run folder has; choose another file" in capsys.readouterr().err
    assert main(["show", str(folder)]) == 0


def test_what_stands_behind_the_output_keeps_what_it_has(small_run: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("precious\n")
    words = command("report", small_run, "--no-baselines", "--out", "/dev/stdout")
    with log.open("a") as stream:
        subprocess.run(words, stdout=stream, stderr=subprocess.DEVNULL, env=environment(), check=True)
    text = log.read_text()
    assert text.startswith("precious\n<!")
    assert text.rstrip().endswith("/dev/stdout")


def test_an_evaluation_is_kept_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "g", *SMALL, "--out", "/dev/null"]) == 2
    assert "--out /dev/null is no file that can be read again" in capsys.readouterr().err


def test_a_name_that_is_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--task", "digits", "--out", str(tmp_path / ("x" * 300))]) == 2
    assert "cannot be made: File name too long" in capsys.readouterr().err


def test_a_result_with_line_ends_of_windows_is_its_own(tmp_path: Path) -> None:
    rule = tmp_path / "rule"
    rule.write_bytes(b"def rule(p, g, *, lr):\r\n    return p - lr * g\r\n")
    words = ["simplify", f"@{rule}", *SMALL, "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert main(words) == 0
        assert b"\r\n" in (tmp_path / "out" / "rule.txt").read_bytes()


def test_a_limit_of_time_can_be_taken_back(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    assert main(["resume", str(folder), "--trials", "44", "--seconds", "1e-9"]) == 0
    assert "--seconds S" in capsys.readouterr().err
    assert main(["resume", str(folder), "--seconds", "inf"]) == 0
    assert "all trials done" in capsys.readouterr().err
