"""What a user gives is obeyed or refused, and never passed over: empty names, options of another space, equal names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nos_search import Task, search
from nos_search.cli import main
from nos_search.errors import UsageError, choose
from nos_search.rules import compile_rule, distinct, parse_rule_argument
from nos_search.task import load
from nos_search.train.promotion import Promotion

SGD = "def rule(p, g, *, lr):\n    return p - lr * g\n"
MOMENTUM = "def rule(p, g, m, *, lr):\n    m = 0.9 * m + g\n    return p - lr * m, m\n"


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Returns the one line by which a command refuses what it was given."""
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--out", ""],
        ["run", "--out", "new", "--data-dir", ""],
        ["resume", ""],
        ["show", ""],
        ["report", "run", "--out", ""],
        ["export", "adam", "--out", ""],
        ["evaluate", "adam", "--out", ""],
        ["evaluate", "adam", "--plot", ""],
        ["prove", "adam", "--html", ""],
        ["simplify", "adam", "--out", ""],
        ["constants", "adam", "--out", ""],
    ],
)
def test_an_empty_name_of_a_file_is_no_default(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an unset variable of a shell gives it: the folder of the moment, or the default, would be written to."""
    monkeypatch.chdir(tmp_path)
    option = words[words.index("") - 1] if words[0] not in ("show", "resume") else "DIR"
    said = refused(capsys, *words)
    assert said.startswith(f"nos-search {words[0]}: {option} is empty; name a f")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "kinds", "kind"),
    [
        (["--space", "program", "--groups", "3"], "nos", "program"),
        (["--space", "lion", "--no-masks"], "nos", "lion"),
        (["--space", "text", "--vocabulary", "icml"], "nos", "text"),
        (["--lines", "4"], "program or lion", "nos"),
    ],
)
def test_an_option_of_another_space_is_refused(
    words: list[str], kinds: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option = next(word for word in words if word.startswith("--") and word != "--space")
    assert refused(capsys, "space", *words) == (
        f"nos-search space: {option} is an option of --space {kinds}, and this is {kind}; leave {option} out\n"
    )


def test_a_rank_without_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--rank 2 is for one rule of a run folder" in refused(capsys, "export", "adam", "--rank", 2)


def test_a_mistyped_name_is_answered_with_the_near_one() -> None:
    known = ("charmlp", "digits", "icml")
    assert str(choose("--task", "digts", known)) == (
        "--task 'digts' is not known; choose one of: charmlp, digits, icml (did you mean 'digits'?)"
    )
    assert "did you mean 'icml'?" in str(choose("--vocabulary", "ICML", known))
    assert "did you mean" not in str(choose("--task", "x", known))


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ("digits@2", "'2' in 'digits@2' is not a number above 0 and up to 1"),
        ("digits*1e300", "'1e300' in 'digits*1e300' is not a number above 0 and up to 1e+06"),
        ("digits:gru", "in 'digits:gru', --net 'gru' is not known"),
        ("digits,,digits", "'' names no task"),
        ("digits+", "'' names no task"),
    ],
)
def test_a_rung_that_cannot_be_is_named(rungs: str, words: str) -> None:
    with pytest.raises(UsageError) as fault:
        Promotion.parse(rungs, own=load("digits"))
    assert str(fault.value).startswith("--promote: ")
    assert words in str(fault.value)


def test_functions_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(SGD)
    second.write_text(MOMENTUM)
    small = ["--tasks", "tabular", "--sweep-steps", "2", "--train-steps", "4", "--seeds", "2"]
    words = ["evaluate", f"@{first}", f"@{second}", "--baseline", f"@{first}", *small]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert {row.split("  ")[-1] for row in out.splitlines() if row.startswith("tabular ")} == {"rule", "rule (2)"}
    assert "tabular: rule (2) against rule on test data" in out
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rules"] == {"rule": SGD.strip("\n"), "rule (2)": MOMENTUM.strip("\n")}
    for command, more in (("surfaces", ["--steps", "2"]), ("diagnose", ["--trials", "1"])):
        assert main([command, f"@{first}", f"@{second}", f"@{first}", "--json", *more]) == 0
        rows = json.loads(capsys.readouterr().out)["results"]
        assert [(row["rule"], row["text"]) for row in rows] == list(document["rules"].items())


def test_labels_differ_whatever_rules_are_called() -> None:
    named = [compile_rule(SGD.replace("rule", name)) for name in ("a", "b")] + [
        compile_rule(MOMENTUM.replace("rule", "a"))
    ]
    assert [rule.label for rule in distinct([*named, named[0]])] == ["a", "b", "a (2)"]


def test_blanks_around_a_name_are_no_other_rule() -> None:
    assert parse_rule_argument(" adam ") == parse_rule_argument("adam")


def test_a_run_goes_on_with_the_examples_that_it_began_with(tmp_path: Path) -> None:
    """Rewards on other data are no rewards of the same run, and a limit that was passed is none."""

    def task(width: int, seed: int) -> Task:
        random = np.random.default_rng(seed)
        x = random.normal(size=(60, width))
        return Task.from_arrays(x, (x[:, 0] > 0).astype(int), name="mine", sweep_steps=2, train_steps=3)

    run = search(task(4, 1), trials=4, promote="none", out=tmp_path / "run")
    for other in (task(3, 1), task(4, 2)):
        with pytest.raises(UsageError, match="task 'mine' has not the examples with which this run began"):
            run.resume(task=other, trials=6)
    for limit in ({"trials": 3}, {"children": 1}):
        (name,) = limit
        with pytest.raises(UsageError, match=rf"--{name} {limit[name]}: .*run has \d .* already; name a higher number"):
            run.resume(task=task(4, 1), **limit)
    assert run.resume(task=task(4, 1), trials=6).summary()["trials"] == 6
    with pytest.raises(UsageError, match="search has no argument 'data'"):
        search(task(4, 1), data="x")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def make(): return TASK", None),
        ("def make(folder): return TASK if folder is None else 1", None),
        ("def make(*, folder=None): return TASK", None),
        ("def make(**options): return TASK", None),
        (
            "def make(first, second): return TASK",
            r"takes \(first, second\); let it take nothing, or the folder of --da",
        ),
        ("def make(*, first): return TASK", r"takes \(\*, first\); let it take nothing, or the folder of --data-dir"),
    ],
)
def test_a_task_of_ones_own_is_called_as_it_can_be(
    source: str, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(f"from nos_search.task import load\nTASK = load('tabular')\n{source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    if message is None:
        assert load(f"{module}:make").name == f"{module}:make"
        return
    with pytest.raises(UsageError, match=f"--task '{module}:make' {message}"):
        load(f"{module}:make")
