"""evaluate --out: what is finished survives Ctrl-C and faults, is not trained again, and is checked when it is read."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nos_search.cli import main
from nos_search.errors import SearchError, UsageError
from nos_search.executor import Answer
from nos_search.rules import compile_rule
from nos_search.run import trainings
from nos_search.store import files, record
from nos_search.store.record import Record
from nos_search.train.child import Outcome

from .conftest import StubExecutor, stub_outcome

SMALL = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]
RULES = ["g", "adam", "log(-1 - g * g)"]
COMMON, TASKS, VERSIONS = {"sweep": "full"}, {"digits": {"net": "mlp"}}, {"torch": "2.10"}
DONE = Outcome("done", 0.5, 0.1, {"val_loss": [2.0, 1.0]}, 0.25)
DIVERGED = Outcome("diverged", 0.0, None, {})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Counts trainings; an exception put at its front, as a number and the exception, ends that one."""
    calls: list[object] = []
    real = trainings.score

    def score(*args: Any, **more: Any) -> Outcome:
        if calls and isinstance(calls[0], tuple) and calls[0][0] == len(calls):
            raise calls[0][1]
        calls.append(args)
        return real(*args, **more)

    monkeypatch.setattr(trainings, "score", score)
    return calls


@pytest.mark.parametrize(("fault", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("the machine is on fire"), 1)])
def test_what_is_finished_is_shown_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[object], fault: BaseException, status: int
) -> None:
    path = tmp_path / "night.json"
    words = ["evaluate", *RULES, "--seeds", "2", "--baseline", "adam", "--json", "--threads", "1", *SMALL]
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)
    trained[:] = [(4, fault)]  # after the second rule's first seed
    assert main([*words, "--out", str(path)]) == status
    out, err = capsys.readouterr()
    assert [row["rule"] for row in json.loads(out)["results"]] == ["g"]
    assert json.loads(out)["results"][0] == {**whole["results"][0], "difference": None}  # adam is not finished
    last = "interrupted" if status == 130 else "the machine is on fire"
    assert err.splitlines()[-1].endswith(last)
    assert f"3 of 6 trainings are finished, and kept in {path}: the same command goes on from there" in err
    trained.clear()
    assert main([*words, "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == whole
    assert len(trained) == 3
    assert f"{path} has 3 finished training(s)" in err
    assert list(tmp_path.iterdir()) == [path]
    trained.clear()
    assert main([*words, "--out", str(path)]) == 0
    assert trained == []
    assert json.loads(capsys.readouterr().out) == whole
    assert main([*words[:1], "sgd", *words[1:], "--out", str(path)]) == 0  # more of the same is added
    assert len(trained) == 2


def test_what_ended_together_with_a_fault_is_kept() -> None:
    """Of trainings that end at once, as those of several workers do, the good ones come first, and then the fault."""

    class AtOnce(StubExecutor):
        def wait(self, seconds: float = math.inf) -> list[Answer]:
            return [answer for _ in range(len(self._held)) for answer in super(AtOnce, self).wait()]

    executor = AtOnce(lambda job: f"fire {job.seed}" if job.seed in (2, 3) else None, slots=4)
    rule = compile_rule("g")
    wanted = [trainings.Wanted(rule, 0, seed) for seed in range(1, 6)]
    ended = trainings.run_all(executor, wanted, started=lambda each: None)
    assert [next(ended), next(ended)] == [(wanted[k], stub_outcome(rule.key)) for k in (0, 3)]
    with pytest.raises(SearchError, match="g: seed 2 could not be trained: fire 2"):
        next(ended)


def test_nothing_finished_and_nothing_kept(capsys: pytest.CaptureFixture[str], trained: list[object]) -> None:
    trained[:] = [(2, KeyboardInterrupt())]
    assert main(["evaluate", "g", "--seeds", "2", "--threads", "1", *SMALL]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 2 trainings are finished, and not kept: see --out" in err


@pytest.mark.slow
def test_workers_go_on_with_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "g", "drop(g, 0.1)", "--seeds", "2", "--json", *SMALL]
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "g", "--seeds", "1", "--out", str(tmp_path / "x"), *SMALL]) == 0
    capsys.readouterr()
    assert main([*words, "--workers", "2", "--out", str(tmp_path / "x")]) == 0
    assert json.loads(capsys.readouterr().out) == whole


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "x.json")
    words = ["evaluate", "g", "--seeds", "1", "--out", path]
    assert main([*words, *SMALL]) == 0
    before = Path(path).read_bytes()
    for more, said in (
        (["--sweep", "full", *SMALL], "has trainings with sweep fine, not full"),
        (["--threads", "2", *SMALL], "has trainings with threads 1, not 2"),
        ([*SMALL[:2], "--train-steps", "7", "--width", "4"], "has trainings with digits train-steps 6, not 7"),
    ):
        capsys.readouterr()
        assert main([*words, *more]) == 2
        assert f"--out {path} {said}; choose another file for these" in capsys.readouterr().err
    assert Path(path).read_bytes() == before


def test_a_setting_that_is_left_out_differs_from_one_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files have no decay where there was none, and no score that is the accuracy."""
    words = ["evaluate", "g", "--seeds", "1", *SMALL, "--out"]
    for k, (more, said) in enumerate(
        ((["--decay", "linear_cosine"], "decay linear_cosine"), (["--score", "bits-saved"], "digits score bits-saved"))
    ):
        path = str(tmp_path / str(k))
        assert main([*words, path, *more]) == 0
        assert main([*words, path]) == 2
        assert f"--out {path} has trainings with {said}, not none" in capsys.readouterr().err
        other = str(tmp_path / f"other {k}")
        assert main([*words, other]) == 0
        assert main([*words, other, *more]) == 2
        assert (
            f"--out {other} has trainings with {said.rpartition(' ')[0]} none, not {more[1]}" in capsys.readouterr().err
        )


def kept(path: Path) -> Record:
    return Record(str(path), COMMON, TASKS, VERSIONS)


def test_the_file_gives_back_what_was_put_in(tmp_path: Path) -> None:
    path = tmp_path / "x"
    first = kept(path)
    first.add("digits", "g", 2**62, DONE)
    first.add("digits", "a \u2028 \" '", 2, DIVERGED)
    again = Record(str(path), COMMON, {"charlm": {"net": "gru"}}, {"torch": "3.0"})
    assert (again.finished, again.changed) == (2, ["torch 2.10 -> 3.0"])
    found = again.get("digits", "g", 2**62)
    assert found is not None
    assert (found.status, found.reward, found.lr, found.test, found.curve["val_loss"][-1]) == (
        "done",
        0.5,
        0.1,
        0.25,
        1.0,
    )
    diverged = again.get("digits", "a \u2028 \" '", 2)
    assert diverged is not None
    assert (diverged.status, diverged.lr, diverged.test) == ("diverged", None, None)
    assert again.get("digits", "g", 3) is None
    again.add("charlm", "g", 1, DONE)
    with pytest.raises(UsageError, match="has trainings with digits net mlp, not wrn"):
        Record(str(path), COMMON, {"digits": {"net": "wrn"}}, VERSIONS)
    assert kept(path).finished == 3


def test_what_could_not_be_written_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(option: str, path: str, content: str) -> None:
        raise SearchError("the disk is full")

    first = kept(tmp_path / "x")
    first.add("digits", "g", 1, DONE)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(SearchError, match="the disk is full"):
            first.add("digits", "g", 2, DONE)
    assert (first.added, first.get("digits", "g", 2)) == (1, None)
    first.add("digits", "g", 3, DONE)
    again = kept(tmp_path / "x")
    assert (again.finished, again.count({"g"}), again.count({"m"})) == (2, 2, 0)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    writer = kept(path)
    writer.add("digits", "g", 1, DONE)
    writer.add("digits", "adam", 1, DIVERGED)
    good = path.read_bytes()
    said = []
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            assert kept(path).finished == 2  # white space, then
        except (SearchError, UsageError) as error:
            said.append(str(error))
        else:
            assert json.loads(bytes(bad)) == json.loads(good)
    assert len(said) > len(good) // 2
    assert all(str(path) in line and "\n" not in line for line in said)
    for cut in range(7, len(good) - 1, 7):  # an empty file is one that nothing was written to yet
        path.write_bytes(good[:cut])
        with pytest.raises(SearchError):
            kept(path)


def test_files_of_something_else_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("my notes", "[]", "{}", '{"kind": 1}', "[" * 100_000, "\ufeff{}"):
        path.write_text(text)
        with pytest.raises(UsageError, match="is no file of evaluate --out"):
            kept(path)
        assert path.read_text() == text


@pytest.mark.parametrize(
    "change",
    [
        {"status": "running"}, {"validation": "0.5"}, {"validation": 1.5}, {"validation": None}, {"test": None},
        {"lr": -1.0}, {"lr": True}, {"loss": 1e308}, {"seed": "1"}, {"seed": 1.0}, {"rule": 5}, {"task": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_checksum_is_no_proof_of_good_will(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "x"
    kept(path).add("digits", "g", 1, DONE)
    document = json.loads(path.read_bytes())
    del document["sha256"]
    document["trainings"][0].update(change)
    path.write_text(json.dumps({**document, "sha256": record._digest(document)}))
    with pytest.raises(SearchError, match="is damaged"):
        kept(path)


@pytest.mark.parametrize("change", [{"task": "charlm"}, {"rule": "adam", "seed": 1}], ids=["task", "twice"])
def test_trainings_must_fit_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    """Each is of a task whose settings the file has, and is there once."""
    path = tmp_path / "x"
    writer = kept(path)
    writer.add("digits", "adam", 1, DONE)
    writer.add("digits", "g", 1, DONE)
    document = json.loads(path.read_bytes())
    del document["sha256"]
    document["trainings"][1].update(change)
    path.write_text(json.dumps({**document, "sha256": record._digest(document)}))
    with pytest.raises(SearchError, match="is damaged"):
        kept(path)


EVIL = "full\n\x1b[2Jnos-search: all is well" + "x" * 10_000


@pytest.mark.parametrize("part", ["common", "tasks", "format", "versions"])
def test_values_of_a_foreign_file_are_shown_on_one_line(tmp_path: Path, part: str) -> None:
    path = tmp_path / "x"
    kept(path).add("digits", "g", 1, DONE)
    document = json.loads(path.read_bytes())
    del document["sha256"]
    wrong = {"common": {"sweep": EVIL}, "tasks": {"digits": {"net": EVIL}}, "format": EVIL, "versions": {"torch": EVIL}}
    document[part] = wrong[part]
    path.write_text(json.dumps({**document, "sha256": record._digest(document)}))
    try:
        said = "; ".join(kept(path).changed)
    except SearchError as error:
        said = str(error)
    assert r"full\n\x1b[2J" in said
    assert said.isprintable()
    assert len(said) < len(str(path)) + 300


def test_newer_formats_are_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "x"
    kept(path).add("digits", "g", 1, DONE)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(SearchError, match="has format 2, this release reads 1; upgrade"):
        kept(path)


def test_several_at_a_time_lose_nothing(tmp_path: Path) -> None:
    """Each has its own rules; the file is made anew again and again, and has them all in the end."""
    path, count, rules = tmp_path / "x", 8, ("a", "b", "c", "d")
    books = [kept(path) for _ in rules]  # there is no file yet, and all of them make it

    def fill(book: Record, rule: str) -> None:
        for seed in range(count):
            book.add("digits", rule, seed, DONE)

    with ThreadPoolExecutor(len(rules)) as pool:
        list(pool.map(fill, books, rules))
    found = kept(path)
    assert found.finished == count * len(rules)
    assert all(found.get("digits", rule, seed) is not None for rule in rules for seed in range(count))
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_one_of_other_settings_does_not_mix_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    other = Record(str(path), {"sweep": "fine"}, TASKS, VERSIONS)
    kept(path).add("digits", "g", 1, DONE)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="has trainings with sweep full, not fine; choose another file for these"):
        other.add("digits", "g", 2, DONE)
    assert path.read_bytes() == before


def test_an_empty_file_has_nothing_yet(tmp_path: Path) -> None:
    """Whoever is killed between making the file and its first training leaves one."""
    path = tmp_path / "x"
    path.touch()
    kept(path).add("digits", "g", 1, DONE)
    assert kept(path).finished == 1


def test_each_row_is_made_into_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written whole after each of thousands of trainings. It is the JSON that it would be otherwise."""
    made: list[object] = []
    real = record._row_texts

    def counted(row: dict[str, Any]) -> tuple[str, str]:
        made.append(row)
        return real(row)

    monkeypatch.setattr(record, "_row_texts", counted)
    path = tmp_path / "night.json"
    first, second = (Record(str(path), COMMON, TASKS, VERSIONS) for _ in range(2))
    for seed in range(4):
        (first, second)[seed % 2].add("digits", 'r"\\n\u00e9', seed, DONE if seed else DIVERGED)
    curve = {"val_loss": [1.0], "steps": [5], "score": [0.5]}
    first.add("digits", "g", 1, Outcome("done", 0.5, 0.1, curve, None), 3)
    text = path.read_text()
    document = json.loads(text)
    assert text == json.dumps(document, indent=1) + "\n"
    assert [row["seed"] for row in document["trainings"]] == [0, 1, 2, 3, 1]
    assert document["trainings"][-1]["rate"] == 3
    assert len(made) == 5 + 4  # each of the two has made the rows of the other
    assert Record(str(path), COMMON, TASKS, VERSIONS).finished == 5
