"""The search as a Python program calls it: tasks of arrays, objectives, runs that go on."""

from __future__ import annotations

import gc
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
import nos_search
from nos_search import Task
from nos_search.cli import main
from nos_search.errors import SearchError, StoreError, UsageError
from nos_search.space import ProgramSpace
from nos_search.store import Trial
from nos_search.task import load

RNG = np.random.RandomState(0)
FEATURES = RNG.normal(size=(90, 5)) * [1, 10, 100, 1000, 0] + [0, 5, 50, 500, 7]
CLASSES = (FEATURES[:, 0] > 0).astype(int) + (FEATURES[:, 1] > 5)


def small(**options: Any) -> Task:
    return Task.from_arrays(FEATURES, CLASSES, **{"net": "mlp-1-4", "sweep_steps": 4, "train_steps": 6, **options})


# --- tasks of arrays --------------------------------------------------------------------------------------------------


def test_features_are_divided_and_standardised() -> None:
    task = small(name="mine", seed=3)
    assert (task.name, task.classes, str(task.spec)) == ("mine", 3, "mlp-1-4")
    assert [len(part) for part in (task.train, task.val, task.test)] == [62, 14, 14]
    x = task.train.x[:, 0, 0]
    torch.testing.assert_close(x.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(0), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    again = small(name="mine", seed=3)
    assert torch.equal(again.train.x, task.train.x)
    assert not torch.equal(small(seed=4).train.y, task.train.y)


def test_no_example_is_in_two_splits() -> None:
    numbered = np.arange(90.0)[:, None]
    task = Task.from_arrays(numbered, np.arange(90) % 2)
    parts = [part.x.flatten() for part in (task.train, task.val, task.test)]
    whole = torch.cat(parts)
    assert len(whole.unique()) == 90
    order = whole.argsort().argsort()  # the scaling keeps the order, so this is each example's number
    assert torch.equal(torch.cat([part.y for part in (task.train, task.val, task.test)]), order % 2)


def test_splits_of_the_users_own() -> None:
    task = small(val=(FEATURES[:10], CLASSES[:10]), test=(FEATURES[10:30], CLASSES[10:30]))
    assert [len(part) for part in (task.train, task.val, task.test)] == [90, 10, 20]
    assert torch.equal(task.val.x, task.train.x[:10])
    one = small(test=(FEATURES[:9], CLASSES[:9]))
    assert [len(part) for part in (one.train, one.val, one.test)] == [76, 14, 9]


def test_images_and_tokens() -> None:
    images = Task.from_arrays(torch.rand(40, 8, 8), torch.arange(40) % 4)
    assert str(images.spec) == "convnet-2-8"
    assert images.train.x.shape[1:] == (1, 8, 8)
    assert images.train.x.mean().abs() < 1e-5
    coloured = Task.from_arrays((RNG.rand(40, 3, 8, 8) * 255).astype(np.uint8), (np.arange(40) % 4).tolist())
    assert coloured.train.x.shape[1:] == (3, 8, 8)
    tokens = Task.from_arrays(RNG.randint(0, 9, (40, 6)), np.arange(40) % 3)
    assert (tokens.shape.kind, tokens.shape.vocabulary, tokens.shape.length) == ("context", 9, 6)
    assert tokens.train.x.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": FEATURES}, r"y has shape \(90, 5\) and dtype float64; give class numbers"),
        ({"y": CLASSES[:3]}, "x has 90 examples and y has 3 classes; give one each"),
        ({"y": ["a"] * 90}, "y has shape .* number names of classes"),
        ({"y": CLASSES - 1}, "y has the class -1; number classes from 0"),
        ({"y": CLASSES * 0}, "y has one class only"),
        ({"x": None}, "x is a NoneType, and no array of numbers"),
        ({"x": [[1, 2], [3]]}, "x is no array"),
        ({"x": [[1, None]] * 90}, "x holds objects of Python, and not numbers alone"),
        ({"x": FEATURES * np.inf}, "x has values that are not finite"),
        ({"x": np.zeros((90, 2, 2, 2, 2))}, r"x has shape \(90, 2, 2, 2, 2\)"),
        ({"x": FEATURES[:9], "y": CLASSES[:9]}, "x has 9 examples, too few to divide; give at least 20"),
        ({"x": np.where(FEATURES > 0, np.nan, FEATURES)}, "x has values that are not finite"),
        ({"x": FEATURES * 1e38}, "x has values that are not finite"),
        ({"x": RNG.rand(90, 4, 4) * 3e38}, "x has values so far apart that their mean and variance are not finite"),
        ({"x": np.full((90, 4, 4), 7.0)}, "x has the value 7 everywhere, so there is nothing to learn from"),
        ({"x": np.full((90, 4), 7.0)}, "x has the value 7 everywhere, so there is nothing to learn from"),
        ({"x": [], "y": []}, r"x is empty, of shape \(0,\); give examples"),
        ({"x": np.zeros((90, 0))}, r"x is empty, of shape \(90, 0\)"),
        ({"y": np.zeros(0, int)}, r"y is empty, of shape \(0,\)"),
        ({"x": ["a"] * 90}, r"x has shape \(90,\) and dtype <U1; give numbers"),
        (
            {"y": np.where(np.arange(90) < 1, 10**6, 0)},
            "y has the class 1000000, but 90 numbers in all, so most are nev",
        ),
        ({"y": np.where(np.arange(90) < 1, 2**62, 0)}, "y has the class 4611686018427387904; number classes 0, 1, 2"),
        ({"x": np.where(np.arange(180).reshape(90, 2) < 1, 10**9, 0)}, "x has the token 1000000000, but 180 numbers"),
        ({"y": np.arange(90) == 95, "x": FEATURES}, "y has shape .* and dtype bool; give class numbers"),
        (
            {"y": CLASSES * 0, "val": (FEATURES, CLASSES), "test": (FEATURES, CLASSES)},
            "y, where it trains, has one class only",
        ),
        ({"val": 5}, r"val\[0\] and val\[1\]: got a int; give a pair"),
        ({"val": "ab"}, r"val\[0\] is a str, and no array of numbers"),
        ({"batch_size": "8"}, "batch_size is '8', a str; give a whole number, or leave it out"),
        ({"train_steps": 2.5}, "train_steps is 2.5, a float; give a whole number"),
        ({"sweep_steps": 10**12}, "sweep_steps 1000000000000 is above 1000000000"),
        ({"seed": -1}, "seed -1 is below 0; leave it out for 0"),
        ({"net": 5}, "net is a int; give it as text"),
        ({"name": None}, "name is a NoneType; give it as text"),
        ({"score": None}, "score is a NoneType; give it as text"),
        ({"val": (FEATURES[:, :3], CLASSES)}, r"val\[0\] has examples of shape \(1, 1, 3\)"),
        ({"test": FEATURES}, r"test\[0\] and test\[1\]: got 90 arrays; give a pair"),
        ({"batch_size": 0}, "batch_size 0 is below 1"),
        ({"x": torch.zeros(90, 4).to_sparse()}, "x is a tensor that is no dense array: .*; give a dense tensor"),
        ({"x": np.ma.masked_less(FEATURES, 0)}, "x has .* masked values; fill or leave out these examples"),
        ({"net": "gru-1-4"}, "--net 'gru' is not known; choose one of: convnet, wrn, mlp"),
        ({"score": "loss"}, "--score 'loss' is not known; choose one of: accuracy, bits-saved"),
    ],
)
def test_wrong_arrays(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Task.from_arrays(**{"x": FEATURES, "y": CLASSES, **arguments})


def test_arrays_of_other_kinds() -> None:
    """bfloat16, which NumPy does not have; a tensor with a gradient; NumPy's whole numbers; pairs as lists."""
    half = torch.tensor(FEATURES, dtype=torch.bfloat16, requires_grad=True)
    task = Task.from_arrays(half, CLASSES, batch_size=np.int64(16), val=[FEATURES, CLASSES.tolist()])
    assert task.budget.batch_size == 16
    assert task.train.x.dtype == torch.float32
    whole = Task.from_arrays(half.detach().float().numpy(), CLASSES, val=(FEATURES, CLASSES))
    assert torch.equal(task.train.x, whole.train.x)


# --- a search ---------------------------------------------------------------------------------------------------------


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def on_start(self, trial: Trial, rung: int) -> None: ...

    def on_trial(self, trial: Trial) -> None:
        self.trials.append(trial)

    def on_promotion(self, trial: Trial, rung: int, score: object) -> None: ...


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_caller_s_threads_stay(tmp_path: Path) -> None:
    """A training sets torch's own number of threads, which is 1, and whoever calls gets back what was."""
    seen: list[int] = []

    def counted(program: nos_ext.Program, seed: int) -> float:
        seen.append(torch.get_num_threads())
        return distance(program, seed)

    run = nos_search.search(objective=counted, out=tmp_path / "run", children=2)
    assert torch.get_num_threads() == 2
    run.resume(objective=counted, children=3)
    assert torch.get_num_threads() == 2
    assert set(seen) == {1}
    with pytest.raises(UsageError, match="already holds a run"):
        nos_search.search(small(), out=tmp_path / "run", trials=2)
    assert torch.get_num_threads() == 2


def test_a_search_on_arrays(tmp_path: Path) -> None:
    threads, heard = torch.get_num_threads(), Heard()
    task = small(name="my table", score="bits-saved")
    run = nos_search.search(task, out=tmp_path / "run", trials=12, strategy="evolution", listeners=[heard])
    assert torch.get_num_threads() == threads
    assert sorted(trial.id for trial in heard.trials) == list(range(12))
    answered = [trial for trial in run.trials() if trial.told is not None]
    assert answered == sorted(heard.trials, key=lambda trial: trial.id)
    best = run.best(3)
    assert [row.rank for row in best] == [1, 2, 3][: len(best)]
    assert run.summary()["score"] == "bits-saved"
    assert repr(run).startswith(f"<Run finished, {run.summary()['trained']} rules trained on my_table, best ")
    # the rule at the rate that won
    model = torch.nn.Linear(2, 2)
    assert run.optimizer(model.parameters()).param_groups[0]["lr"] == best[0].lr
    assert run.optimizer(model.parameters(), lr=0.5).param_groups[0]["lr"] == 0.5
    assert run.program().hyperparameters["lr"] is None
    names: dict[str, Any] = {}
    exec(run.export(), names)
    (kind,) = [value for name, value in names.items() if name == "FoundRule"]
    assert kind(model.parameters()).param_groups[0]["lr"] == best[0].lr
    page = run.report()
    assert page == tmp_path / "run" / "report.html"
    assert "my_table" in page.read_text(encoding="utf-8")
    # it goes on as a longer run would have
    longer = nos_search.search(task, out=tmp_path / "longer", trials=20, strategy="evolution")
    again = nos_search.load(tmp_path / "run").resume(task=task, trials=20)
    assert [(t.rule, t.reward) for t in again.trials()] == [(t.rule, t.reward) for t in longer.trials()]


def test_the_command_line_shows_such_a_run_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    nos_search.search(small(), out=folder, trials=4)
    assert main(["show", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "arrays"
    assert main(["resume", folder, "--trials", "9"]) == 2
    assert "this run's task 'arrays' was given by a Python program" in capsys.readouterr().err
    assert main(["report", folder]) == 0
    assert "known optimizers are left out" in capsys.readouterr().err


def test_a_run_without_a_folder_goes_with_its_object() -> None:
    run = nos_search.search(small(), trials=2)
    folder = run.folder
    assert folder.is_dir()
    del run
    gc.collect()
    assert not folder.exists()


def distance(program: nos_ext.Program, seed: int) -> float:
    """How near 20 steps on |p|^2 come to its minimum, from 1 each."""
    p = [np.ones(4, np.float32)]
    state = nos_ext.init_state(program, p)
    for step in range(1, 21):
        nos_ext.apply_rule(program, p, [2 * p[0]], state, lr=0.1, step=step, seed=seed)
    left = float(np.sum(p[0] ** 2))
    return max(0.0, 1 - left / 4) if np.isfinite(left) else float("nan")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_objective(tmp_path: Path, workers: int) -> None:
    log = io.StringIO()
    run = nos_search.search(
        objective=distance,
        out=tmp_path / "run",
        children=5,
        workers=workers,
        space=ProgramSpace(lines=3),
        progress=log,
    )
    assert "new best" in log.getvalue()
    assert "at lr" not in log.getvalue()
    done = [trial for trial in run.trials() if trial.status == "done"]
    assert done
    for trial in done:
        assert trial.reward == distance(nos_ext.compile_rule(trial.rule), trial.seed)
        assert trial.lr is None
    assert run.best(1)[0].reward == max(trial.reward for trial in done)
    assert "what the run" in run.report().read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="this run's objective chose no learning rate; give lr="):
        run.optimizer(torch.nn.Linear(2, 2).parameters())
    assert len(run.resume(objective=distance, children=7).trials()) > len(done)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3.5, r"returned 3.5; let it return a number in \[0, 1\]"),
        (None, "returned a NoneType"),
        ("x", "returned a str"),
    ],
)
def test_an_objective_that_returns_no_reward(returned: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        nos_search.search(objective=lambda program, seed: returned, trials=400, strategy="random")


def test_an_objective_where_every_rule_diverges() -> None:
    run = nos_search.search(objective=lambda program, seed: float("nan"), children=3)
    assert run.best() == []
    assert run.summary()["diverged"] == 3
    with pytest.raises(SearchError, match="has 0 rules trained to the end, none of rank 1"):
        run.program()


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "mnist"}, "--task 'mnist' is not known"),
        ({"task": 3}, "search: task is a int; give the name of a task or a nos_search.Task"),
        ({"task": "digits", "objective": distance}, "task and objective are both given"),
        ({"objective": 3}, "objective is a int; give a function"),
        ({"trails": 3}, "search has no argument 'trails'; did you mean 'trials'"),
        ({"space": "nose"}, "space 'nose' is not known; choose one of: nos, program, lion"),
        ({"objective": distance, "promote": "digits"}, "--promote 'digits' needs a task"),
        ({"strategy": "luck"}, "--strategy 'luck' is not known"),
        ({"given": "task"}, "search has no argument 'given'"),
        ({"trials": "5"}, "trials is '5', a str; it must be a whole number"),
        ({"trials": True}, "trials is True, a bool; it must be a whole number"),
        ({"trials": 2.5}, "trials is 2.5, a float; it must be a whole number"),
        ({"seconds": "5"}, "seconds is '5', a str; it must be a number"),
        ({"seed": 1.5}, "seed is 1.5, a float; it must be a whole number"),
        ({"seed": None}, "seed is None, a NoneType; it must be a whole number"),
        ({"strategy": None}, "strategy is None, a NoneType; it must be text"),
        ({"strategy_options": [1]}, "strategy_options is .1., a list; it must be a dict"),
        ({"gates": 5}, "search: gates is a int; give a dict of thresholds"),
        ({"engine": 5}, "engine is 5, a int; it must be text"),
        ({"space": 5}, "space is a int; give its name, or a space"),
        ({"space": {}}, "space {} describes none: it lacks 'options'; give its name"),
        ({"space": {"kind": "program", "lines": "x"}}, "describes none: invalid literal for int"),
        ({"gates": {"descentt": 1}}, "search: gates has no argument 'descentt'; did you mean 'descent'"),
        ({"gates": {"descent": "x"}}, "search: gate descent is 'x'; give a number, or None"),
        ({"gates": {"screen": 5}}, r"gate screen 5 is outside \[0, 1\]"),
        ({"gates": {"steps": 2.5}}, "gate steps is 2.5, a float; give a whole number"),
        ({"width": "4"}, "width is '4', a str; it must be a whole number"),
        ({"progress": closed()}, "progress is a stream that is closed"),
        ({"listeners": None}, "listeners is a NoneType; give a list of them"),
        ({"listeners": [print]}, "a listener, a builtin_function_or_method, has no method on_start; see Listener"),
        ({"progress": True}, "progress is a bool; give a stream, such as sys.stderr"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nos_search.search(**arguments, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    run = nos_search.search(
        small(), out=tmp_path / "run", trials=np.int64(3), seed=np.uint8(4), seconds=np.float32(1000), batch=np.int32(2)
    )
    assert (run.summary()["trials"], run.summary()["seed"]) == (3, 4)
    assert run.resume(task=small(), trials=np.int64(5)).summary()["trials"] == 5


def test_no_folder_has_no_name() -> None:
    with pytest.raises(UsageError, match="search: out is empty; name a folder, or leave it out"):
        nos_search.search(small(), out="", trials=2)
    with pytest.raises(UsageError, match=r"load: folder is empty; name a folder$"):
        nos_search.load("")


@pytest.mark.parametrize("wrong", [5, b"runs", None, ["runs"]])
def test_folders_are_text_or_paths(wrong: Any) -> None:
    said = f"is {re.escape(repr(wrong))}, a {type(wrong).__name__}; give the name of a folder as text or Path"
    with pytest.raises(UsageError, match=f"load: folder {said}"):
        nos_search.load(wrong)
    if wrong is not None:
        with pytest.raises(UsageError, match=f"search: out {said}"):
            nos_search.search(small(), out=wrong, trials=2)


def test_a_run_is_found_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = nos_search.search(objective=lambda program, seed: 0.5, out="mine", trials=2)
    again = nos_search.load("mine")
    monkeypatch.chdir("elsewhere")
    assert run.folder == again.folder == tmp_path / "mine"
    assert run.best(1) == again.best(1)
    assert run.report() == tmp_path / "mine" / "report.html"
    run.resume(objective=lambda program, seed: 0.5, trials=4)
    assert again.summary()["trials"] == 4
    assert not list(Path().iterdir())


@pytest.mark.parametrize("trained", [0, 3])
def test_an_interrupted_search_without_a_folder_is_kept(
    trained: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hours of training must not go away with the object that was never returned. One that has trained nothing goes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("nos_search.run.search._GROUP_SECONDS", 0.0)  # each answer is kept at once
    calls = []

    def interrupted(program: nos_ext.Program, seed: int) -> float:
        calls.append(program)
        if len(calls) > trained:
            raise KeyboardInterrupt
        return 0.5

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            nos_search.search(objective=interrupted, trials=100)
    if not trained:
        assert not said
        assert not list(tmp_path.iterdir())
        return
    (warning,) = said
    (folder,) = tmp_path.iterdir()
    assert str(warning.message) == (
        f"the search stopped after 3 trained rules, which are kept: nos_search.load({str(folder)!r})"
    )
    assert warning.filename == __file__
    run = nos_search.load(folder)
    assert run.summary()["trained"] == 3
    assert run.summary()["state"] == "interrupted"


def test_wrong_calls_on_a_run(tmp_path: Path) -> None:
    run = nos_search.search(small(), out=tmp_path / "run", trials=2)
    with pytest.raises(UsageError, match="already holds a run"):
        nos_search.search(small(), out=tmp_path / "run", trials=2)
    with pytest.raises(UsageError, match="best: k is 0"):
        run.best(0)
    with pytest.raises(UsageError, match="best: k is '3', a str; give a whole number"):
        run.best("3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"rank is 1\.5, a float; give a whole number"):
        run.export(1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--width is '4', a str; give a whole number"):
        small().with_options(width="4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the run's task is 'arrays'; give task=\.\.\., which a folder does not hold"):
        run.resume(trials=5)
    for arguments, message in (
        ({"trials": "9"}, "trials is '9', a str; it must be a whole number"),
        ({"listeners": [None]}, "a listener, a NoneType, has no method on_start"),
    ):
        with pytest.raises(UsageError, match=message):
            run.resume(task=small(), **arguments)
    with pytest.raises(UsageError, match="resume has no argument 'strategy'"):
        run.resume(task=small(), strategy="random")
    with pytest.raises(UsageError, match="the run's task is 'arrays'; "):
        run.resume(objective=distance)
    with pytest.raises(UsageError, match="holds no run"):
        nos_search.load(tmp_path)
    (tmp_path / "run" / "search.db").write_bytes(b"not a database at all")
    with pytest.raises(StoreError):
        nos_search.load(tmp_path / "run")


# --- tasks by the name of their code ----------------------------------------------------------------------------------

MODULE = """
from nos_search import Task
from nos_search.cli import main
def table(data_dir=None):
    x = [[k, k % 7] for k in range(60)]
    return Task.from_arrays([[float(a), float(b)] for a, b in x], [k % 2 for k in range(60)], net="mlp-1-4")
def wrong():
    return 3
"""


def test_a_task_by_the_name_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tasks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    assert load("own_tasks:table").name == "own_tasks:table"
    for name, message in (
        ("own_tasks:wrong", "gave a int; let it return a nos_search.Task"),
        ("own_tasks:none", "cannot be imported: module 'own_tasks' has no attribute 'none'"),
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
    ):
        with pytest.raises(UsageError, match=message):
            load(name)
    run = nos_search.search("own_tasks:table", trials=3, out=tmp_path / "run")
    assert run.summary()["task"] == "own_tasks:table"


def test_a_run_folder_does_not_choose_the_code_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_tasks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as an installed command has it
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)

    def call(*words: str) -> int:
        capsys.readouterr()
        return main(words)

    assert call("run", "--task", "own_tasks:table", "--trials", "3", "--out", "run") == 0
    assert call("resume", "run", "--trials", "5") == 2
    said = capsys.readouterr().err
    assert "names the task own_tasks:table, which is code, and may be anyone's" in said
    assert "nos-search resume run --task own_tasks:table" in said
    assert call("resume", "run", "--trials", "5", "--task", "digits") == 2
    assert call("resume", "run", "--trials", "5", "--task", "own_tasks:table", "--json") == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 5
    (tmp_path / "own_tasks.py").unlink()  # what is kept can be read without the code
    del sys.modules["own_tasks"]
    for words in (("show", "run"), ("report", "run"), ("export", "run"), ("export", "run", "--format", "csv")):
        assert call(*words) == 0, words


def test_a_task_that_a_package_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tasks.py").write_text(MODULE)
    meta = tmp_path / "own-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[nos_search.tasks]\nmy-table = own_tasks:table\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    assert load("my-table").name == "my-table"
    with pytest.raises(UsageError, match=r"'nope' is not known; choose one of: .*my-table, package\.module:function"):
        load("nope")
