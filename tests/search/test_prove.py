"""The command prove: its trainings against trainings made here, resuming, verdicts in JSON and words, wrong usage."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nos_search.cli import main
from nos_search.cli.prove import sentence, split, summary
from nos_search.prove import trials
from nos_search.prove.cells import SIZES, Cell, cells_of, read_horizons, read_sizes
from nos_search.prove.defaults import FULL, SHORT
from nos_search.prove.families import DEFAULT, FAMILIES, OTHER, QUICK, SEARCHED, family_of
from nos_search.prove.protocol import Contender, Protocol, cost
from nos_search.prove.space import Space
from nos_search.rules import compile_rule
from nos_search.run.trainings import TaskRecipe
from nos_search.show import proof
from nos_search.store import Store, files
from nos_search.task import TASKS, load
from nos_search.train.child import Outcome, train
from nos_search.train.engine import kind_for
from nos_search.train.seeds import derive_seed

TINY = ["--train-steps", "6", "--width", "4", "--sizes", "m", "--horizons", "1", "--seeds", "3", "--tuning", "2"]
SMALL = ["--tasks", "digits", "--workers", "1", *TINY]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_scores_are_those_of_trainings_made_here(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(
        capsys,
        "prove",
        "adam * exp(sign(g))",
        "--against",
        "sgd,muon",
        *SMALL,
        "--horizons",
        "1,2",
        "--seed",
        4,
        "--json",
    )
    assert status == 0
    assert "3 contenders in 2 cells" in err
    found = json.loads(out)
    assert [rule["rule"] for rule in found["rules"]] == ["adam * exp(sign(g))"]
    assert list(found["contenders"]) == ["adam * exp(sign(g))", "sgd", "muon"]
    protocol = found["protocol"]
    assert protocol["seeds"] == [derive_seed(4, "prove", k) for k in range(3)]
    assert protocol["tuning_seed"] not in protocol["seeds"]
    assert protocol["nets"] == {"digits m x1": "convnet-2-4", "digits m x2": "convnet-2-4"}
    scores = {}
    for name, contender in found["contenders"].items():
        space = Space.of(compile_rule(name, matrices=True))
        point = next(k for k in range(2) if space.settings(k) == protocol["tuned"][name]["digits"])
        rule = space.point(point)
        for horizon in (1, 2):
            cell = contender["cells"][f"digits m x{horizon}"]
            task = load("digits").with_options(width=4, train_steps=6 * horizon)
            want = [
                train(
                    rule, task, lr=cell["lr"], seed=seed, test=True, kind=kind_for("auto", task, rule), decay="linear_cosine"
                ).test
                for seed in protocol["seeds"]
            ]  # fmt: skip
            assert cell["tests"] == want
            scores[name, horizon] = np.array(want)
            assert cell["test"] == pytest.approx(np.mean(want))
    gaps = [np.mean([scores["adam * exp(sign(g))", h][k] - scores["sgd", h][k] for h in (1, 2)]) for k in range(3)]
    difference = found["rules"][0]["tasks"]["digits"]["differences"]["sgd"]
    assert difference["mean"] == pytest.approx(np.mean(gaps))
    assert difference["half"] == pytest.approx(4.303 * np.std(gaps, ddof=1) / math.sqrt(3), rel=2e-4)


def test_the_same_rule_shows_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "prove", "adam", "--against", "adam", *SMALL, "--json")
    found = json.loads(out)
    assert (status, list(found["contenders"])) == (0, ["adam"])  # trained once
    (rule,) = found["rules"]
    assert rule["verdict"] == "no difference shown"
    assert rule["against"]["adam"]["mean"] == 0
    assert rule["against"]["adam"]["p"] == 1
    assert rule["against"]["adam"]["reached"] == 1
    assert finite(found)
    status, out, _ = call(capsys, "prove", "adam", "--against", "adam", *SMALL)
    assert out.splitlines()[-1].startswith(
        "adam: no difference shown: neither better than each of adam, nor worse than one, over 1 task and 3 seeds ("
    )
    assert "note: searches use digits as a reward" in out


def test_a_rule_that_cannot_learn_is_worse(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys, "prove", "log(-1 - g * g)", "--against", "adam", *SMALL[:4], "--train-steps", 33, *TINY[2:], "--json"
    )
    assert status == 0
    found = json.loads(out)
    (rule,) = found["rules"]
    assert (rule["verdict"], rule["diverged"], rule["trainings"]) == ("worse", 3, 3)
    assert finite(found)
    words = summary(found)
    assert words.splitlines()[-1].endswith("3 of its 3 trainings diverged")
    assert "log(-1 - g * g): worse than adam" in words
    assert proof.forest(found).render("svg")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Counts trainings; a number and an exception put at its front end that training."""
    calls: list[object] = []
    real = trials.train

    def counted(*args: Any, **more: Any) -> Outcome:
        if calls and isinstance(calls[0], tuple) and calls[0][0] == len(calls):
            raise calls[0][1]
        calls.append((args[0].text, more["lr"], more["seed"]))
        return real(*args, **more)

    monkeypatch.setattr(trials, "train", counted)
    return calls


def without_times(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    found["protocol"].pop("times")
    return found


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RuntimeError("the machine is on fire")])
def test_what_is_finished_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[object], fault: BaseException
) -> None:
    words = ["prove", "g", "--against", "adam", *SMALL, "--json"]
    _, out, _ = call(capsys, *words)
    whole, count = without_times(out), len(trained)
    assert len(set(map(str, trained))) == count  # nothing twice
    folder = tmp_path / "proof"
    trained[:] = [(21, fault)]
    status, out, err = call(capsys, *words, "--out", folder)
    assert (status, out) == (130 if isinstance(fault, KeyboardInterrupt) else 1, "")
    assert f"20 trainings were finished by this call, and are kept in {folder}: the same command goes on" in err
    trained.clear()
    status, out, err = call(capsys, *words, "--out", folder)
    assert status == 0
    assert without_times(out) == whole
    assert f"{folder} has 20 finished training(s)" in err
    assert len(trained) == count - 20
    assert sorted(path.name for path in folder.iterdir()) == ["digits-m-x1.json", "proof.json"]
    assert without_times((folder / "proof.json").read_text()) == whole
    trained.clear()
    _, _, err = call(capsys, *words, "--out", folder)
    assert "replaces" not in err
    _, _, err = call(capsys, *words, "--out", folder, "--seeds", "4")  # one more of each
    assert len(trained) == 2
    assert f"note: {folder / 'proof.json'} had the result of other rules or settings, which this one replaces" in err
    _, _, err = call(capsys, "prove", "sign(g)", "--against", "adam", *SMALL, "--out", folder, "--seeds", "4")
    assert re.search(r"about 2[0-9] trainings", err)  # adam's are there
    status, _, err = call(capsys, *words, "--out", folder, "--decay", "none")
    assert status == 2
    assert "has trainings with decay linear_cosine, not none; choose another file" in err


@pytest.mark.parametrize("command", ["prove", "simplify"])
def test_two_at_one_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused before it trains, and so cannot end the first by writing beside it."""
    words = ["--against", "adam", *SMALL] if command == "prove" else ["--tasks", "digits", "--seeds", "3"]
    folder = tmp_path / "out"
    folder.mkdir()
    with files.alone("--out", folder):
        status, out, err = call(capsys, command, "g * m", *words, "--out", folder)
    assert (status, out) == (1, "")
    assert f"--out {folder} is in use by another nos-search; wait for it, or choose another folder" in err
    assert not list(folder.iterdir())


def test_a_verdict_that_cannot_be_written_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full at the end of two hours. What is in the folder is whole, and the same command mends it."""
    words, folder = ["prove", "g", "--against", "adam", *SMALL, "--out", tmp_path / "out"], tmp_path / "out"
    real = os.replace

    def full(source: str, target: str) -> None:
        if target.endswith("proof.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    status, out, err = call(capsys, *words)
    assert status == 1
    assert "g: " in out.splitlines()[-1]
    assert f"--out {folder / 'proof.json'} cannot be written: No space left on device" in err
    assert [path.name for path in folder.iterdir()] == ["digits-m-x1.json"]
    monkeypatch.undo()
    status, again, err = call(capsys, *words)
    assert (status, again) == (0, out)
    assert (folder / "proof.json").exists()


def test_files_edited_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, folder = ["prove", "g", "--against", "adam", *SMALL, "--out", tmp_path / "out"], tmp_path / "out"
    assert call(capsys, *words)[0] == 0
    kept = folder / "digits-m-x1.json"
    whole = kept.read_text()
    for text, status, said in (
        (
            whole.replace('"validation": 0.', '"validation": 0.9'),
            1,
            "is damaged: its checksum does not fit its content",
        ),
        (whole[:-100], 2, "is no file of prove --out, or is cut short; choose another file, or move it away"),
        ("[]", 2, "exists and is no file of prove --out"),
    ):
        kept.write_text(text)
        found, out, err = call(capsys, *words)
        assert (found, out) == (status, ""), said
        assert said in err
        assert kept.read_text() == text  # nothing of it is lost
    kept.unlink()
    kept.mkdir()
    assert call(capsys, *words)[0] == 2
    kept.rmdir()
    (folder / "proof.json").write_text("a note of mine")
    status, _, err = call(capsys, *words)
    assert status == 2
    assert f"--out {folder / 'proof.json'} exists and is no result of prove; choose another folder" in err
    assert [path.name for path in folder.iterdir()] == ["proof.json"]  # nothing was trained


@pytest.mark.slow
def test_workers_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "drop(g, 0.1)", "--against", "muon", "--tasks", "digits", *TINY, "--json"]
    one, two = (without_times(call(capsys, *words, "--workers", workers)[1]) for workers in (1, 2))
    assert one == two


def test_pages_and_drawings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, plot = tmp_path / "page.html", tmp_path / "plot.svg"
    status, _, _ = call(capsys, "prove", "sgd", "adam", "--against", "sgd", *SMALL, "--html", page, "--plot", plot)
    assert status == 0
    text = page.read_text()
    assert text.count("no difference shown") >= 2
    assert "digits m x1" in text
    assert "<script" not in text
    assert "minus that of the baseline" in plot.read_text()


def test_the_best_rule_of_a_run(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "prove", small_run, "--against", "sgd", *SMALL, "--json")
    assert status == 0
    assert len(json.loads(out)["rules"]) == 1


def test_tasks_that_the_run_itself_was_on(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own, and those of its promotions, as the user wrote them; of another rule nothing is known but its text."""
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    with Store.open(folder, write=True) as store:
        store.set_config(
            {**store.config, "task": "chirps", "promote": "own*2#3, autoencoder*2@0.5#2 + spanish:mlp-1-4"}
        )
    rest = ["--against", "sgd", "--tasks", "chirps,autoencoder,tabular", "--workers", "1", *TINY, "--json"]
    for word, found in ((folder, {"chirps", "autoencoder"}), ("adam", set())):
        status, out, _ = call(capsys, "prove", word, *rest)
        assert status == 0
        data = json.loads(out)
        for tasks in (data["protocol"]["tasks"], data["rules"][0]["tasks"]):
            assert {name for name, task in tasks.items() if task["searched"]} == found
        assert ("searches use chirps, autoencoder as a reward" in summary(data)) == bool(found)


def test_one_seed_is_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "sgd", "--against", "adam", *SMALL, "--seeds", "1", "--html", tmp_path / "page.html"]
    status, out, _ = call(capsys, *words, "--out", tmp_path / "out")
    assert status == 0
    assert "±" not in out.splitlines()[1]
    assert "sgd: no difference shown" in out
    found = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert found["rules"][0]["against"]["adam"]["p"] is None
    assert finite(found)


def test_names_that_are_equal_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (f"def f(p, g, *, lr):\n    return p - lr * {k} * g\n" for k in (1, 2))
    status, out, _ = call(capsys, "prove", one, two, "--against", "sgd", *SMALL, "--json")
    assert status == 0
    assert list(json.loads(out)["contenders"]) == ["f", "f (2)", "sgd"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no RULE: name rule text"),
        (["g * gg"], "rule 'g * gg' is not valid"),
        (["g", "--against", "adam,,sgd"], "--against 'adam,,sgd' names no rule between two commas"),
        (["g", "--against", "adamq"], "rule 'adamq' is not valid"),
        (["g", "--tasks", "mnist"], "--tasks 'mnist' is not known"),
        (["g", "--sizes", "s,xl"], "--sizes 'xl' is not known; choose one of: s, m, l"),
        (["g", "--horizons", "1,x"], "--horizons 'x' is no whole number from 1 to 1000000; for example"),
        (
            ["g", "--horizons", "1000", "--train-steps", "2000000"],
            "--horizons 1000 makes 2000000000 steps of the 2000000 of",
        ),
        (["g", "--horizons", "0"], "--horizons '0' is no whole number"),
        (["g", "--seeds", "0"], "--seeds 0 is below 1; choose 3 or more"),
        (["g", "--tuning", "0"], "--tuning 0 is below 1; 1 tunes the learning rate alone"),
        (["g", "--decay", "slow"], "--decay 'slow' is not known"),
        (["g", "--engine", "jax"], "--engine 'jax' is not known"),
        (["g", "--executor", "slurm", *SMALL], "--executor 'slurm' is not known"),
        (
            ["g", "--executor", "inprocess", *SMALL, "--workers", "2"],
            "--workers 2: --executor inprocess has one process; add --workers 1",
        ),
        (["g", "--out", "/dev/null/x", *SMALL], "--out /dev/null/x cannot be made: Not a directory"),
        (["g", "--out", "", *SMALL], "--out is empty; name a folder"),
        (["g", "--html", ""], "--html is empty; name a file"),
        (["g", "--html", "/nowhere/x"], "--html /nowhere/x cannot be written"),
        (["g", "--top", "0"], "--top 0 is below 1"),
        (["g", "--workers", "0"], "--workers 0 is below 1"),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "prove", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_lists_of_rules() -> None:
    assert split("adam, clip(g, 0.1) ,sgd") == ["adam", "clip(g, 0.1)", "sgd"]
    assert split("") == [""]


def test_tables_name_every_task_once() -> None:
    named = [task for tasks in FAMILIES.values() for task in tasks]
    assert len(named) == len(set(named))
    assert set(TASKS) <= set(named)
    assert not set(SEARCHED) & {*DEFAULT, *QUICK}
    assert {*SEARCHED, *DEFAULT, *QUICK} <= set(named)
    assert (family_of("charlm"), family_of("package.module:task")) == ("text", OTHER)


def test_cells() -> None:
    assert cells_of(2, ["s"], [1, 4]) == [Cell(0, "s", 1), Cell(0, "s", 4), Cell(1, "s", 1), Cell(1, "s", 4)]
    task = load("charmlp")
    large = Cell(0, "l", 4).of(task)
    assert (large.width, large.budget.train_steps) == (2 * task.width, 4 * task.budget.train_steps)
    assert list(SIZES) == ["s", "m", "l"]
    for extent in (FULL, SHORT):
        assert set(read_sizes(extent.sizes)) <= set(SIZES)
        assert read_horizons(extent.horizons)[0] == 1


def test_an_estimate_counts_steps() -> None:
    """With a clock that goes on by a second whenever it is read, whatever is trained takes as long."""

    def estimate(tuning: int, seeds: int, horizons: tuple[int, ...]) -> tuple[int, float]:
        task = load("digits").with_options(width=4, train_steps=6)
        recipe = TaskRecipe("digits", options=(("width", 4), ("train_steps", 6)))
        protocol = Protocol((recipe,), (task,), ("m",), horizons, seeds, tuning, "none", "auto", 1)
        ticks = iter(range(10**6))
        found = cost([Contender.of(compile_rule("g"))], protocol, clock=lambda: float(next(ticks)))
        return found.trainings, found.seconds

    assert estimate(1, 1, (1,))[0] == 13
    assert estimate(2, 3, (1,))[0] == 12 + 6 + 3
    assert estimate(1, 1, (1, 2))[0] == 13 + 5
    assert estimate(2, 3, (1,))[1] > estimate(1, 1, (1,))[1]


def test_sentences() -> None:
    protocol = {"tasks": {"a": {}, "b": {}}, "seeds": [1, 2, 3]}
    gap = {"mean": 1.25, "half": 0.5, "p": 0.01, "corrected": 0.01}
    rule = {"rule": "g", "verdict": "better", "against": {"adam": gap}, "diverged": 0, "trainings": 6}
    assert sentence(rule, protocol) == (
        "g: better than adam, over 2 tasks and 3 seeds (difference in deviations of a seed: adam +1.25 ± 0.50)"
    )
    one = {**rule, "verdict": "no difference shown", "against": {"adam": {**gap, "half": None, "corrected": None}}}
    assert sentence(one, protocol).endswith("adam +1.25)")
