"""The command line: every command once on real data, every wrong input, exit status, and what goes to which stream."""

from __future__ import annotations

import ast
import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import rankdata

from nos_search.bounds import MOST
from nos_search.cli import main
from nos_search.rules import parse_stored_rule
from nos_search.run.config import RunConfig
from nos_search.show.live import Display
from nos_search.show.outlook import Limits
from nos_search.space import make_space
from nos_search.store import Score, Store, Trial
from nos_search.task import load
from nos_search.train.promotion import promote
from tests.faults.store import forge

from .conftest import Clock, nos_search, repeatable

SMALL = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command in this process."""
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_run_show_report_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    status, out, err = call(capsys, "run", "--task", "digits", "--trials", 30, "--seed", 3, "--out", folder, *SMALL)
    assert status == 0
    assert "trials 30: trained" in out
    with Store.open(folder) as store:
        assert store.config["strategy_options"]["duplicate_discount"] == 0.75  # the values in force are kept
    assert "rank  reward" in out
    assert "new best" in err
    assert "stopped: all trials done" in err
    status, shown, err = call(capsys, "show", folder)
    assert (status, shown, err) == (0, out, "")

    status, out, _ = call(capsys, "show", folder, "--json")
    data = json.loads(out)
    assert data["trials"] == 30 == data["trained"] + data["duplicates"] + data["rejected"] + data["failed"]
    assert {"rank", "reward", "lr", "rule", "trials", "duplicates"} <= set(data["leaderboard"][0])
    best = data["best"]["rule"]

    status, out, _ = call(capsys, "report", folder)
    assert status == 0
    assert Path(out.strip()) == folder / "report.html"
    assert best.replace("'", "&#39;") in (folder / "report.html").read_text()

    status, out, _ = call(capsys, "export", folder)
    assert status == 0
    assert best in out.splitlines()[0]
    tree = ast.parse(out)
    assert any(isinstance(node, ast.ClassDef) for node in tree.body)
    assert "nos_ext" not in {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }


def test_run_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys, "run", "--task", "digits", "--strategy", "random", "--trials", 5, "--out", tmp_path / "r", "--json", *SMALL,
        "--groups", 1, "--vocabulary", "icml", "--sweep", "full",
    )  # fmt: skip
    assert status == 0
    data = json.loads(out)
    assert (data["strategy"], data["trials"]) == ("random", 5)
    with Store.open(tmp_path / "r") as store:
        assert store.config["space"]["vocabulary"] == "icml"
        assert (store.config["width"], store.config["train_steps"]) == (4, 6)
        assert len(store.trials()[0].tokens) == 5


def test_same_seed_same_leaderboard(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit for bit on real trainings; another seed gives another run."""

    def rows(folder: Path) -> object:
        with Store.open(folder) as store:
            return [repeatable(trial) for trial in store.trials()]

    for name, seed in (("same", 3), ("other", 4)):
        assert (
            call(capsys, "run", "--task", "digits", "--trials", 40, "--seed", seed, "--out", tmp_path / name, *SMALL)[0]
            == 0
        )
    assert rows(tmp_path / "same") == rows(small_run)
    assert rows(tmp_path / "other") != rows(small_run)


def test_resume_adds_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    call(capsys, "run", "--task", "digits", "--trials", 4, "--out", folder, *SMALL)
    status, out, err = call(capsys, "resume", folder, "--trials", 9)
    assert status == 0
    assert "trials 9:" in out
    assert "resuming" in err
    status, _, err = call(capsys, "resume", folder, "--trials", 5)
    assert status == 2
    assert "has 9 trials already; name a higher number" in err
    status, _, err = call(capsys, "resume", folder)
    assert status == 0
    assert "all trials done; continue with: nos-search resume" in err


def test_promote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rungs of real trainings, in another process too: what a direct call gives."""
    folder, ladder = tmp_path / "run", ["--promote", "digits:mlp-1-4*0.2, digits*0.1@0.5", "--promote-eta", 2]
    status, out, err = call(
        capsys, "run", "--task", "digits", "--trials", 60, "--seed", 3, "--out", folder, *SMALL, *ladder, "--workers", 2
    )
    assert status == 0, err
    assert "rank reward digits:mlp-1-4*0.2 digits*0.1@0.5 lr" in " ".join(out.split())
    assert "rung 1 (digits:mlp-1-4*0.2)" in err
    with Store.open(folder) as store:
        promotion = RunConfig.from_json(store.config).make_ladder(load("digits"))
        scores = store.scores("promotion")
    assert promotion is not None
    assert {score.budget["rung"] for score in scores} == {1, 2}
    for score in scores:
        rule = parse_stored_rule(score.name, folder, score.budget["trial"])
        outcome = promote(rule, promotion, score.budget["rung"], seed=score.seed)
        assert (outcome.status, outcome.reward, outcome.lr) == (score.status, score.reward, score.lr)
        assert outcome.curve == score.curve
    status, out, _ = call(capsys, "export", folder, "--format", "csv")
    (header, *rows) = csv.reader(out.splitlines())
    ranks = sorted(float(row[header.index("rung.1.rank")]) for row in rows if row[header.index("rung.1.rank")])
    assert ranks == pytest.approx(sorted(rankdata([-(s.reward or 0) for s in scores if s.budget["rung"] == 1])))
    column = header.index("rung.1.reward")
    assert sorted(float(row[column]) for row in rows if row[column]) == sorted(
        score.reward or 0.0 for score in scores if score.budget["rung"] == 1
    )


def test_the_default_ladder_is_written_down_and_climbed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first rung is the run's own task, with its own network: ten times the steps, three seeds."""
    folder = tmp_path / "run"
    line = ["run", "--task", "digits", "--strategy", "random", "--trials", 60, "--promote-eta", 5, "--json", *SMALL]
    status, out, err = call(capsys, *line, "--out", folder)
    assert status == 0, err
    data = json.loads(out)
    assert data["rungs"] == ["own*10#3", "charmlp+teacher+mnist1d+charlm"]
    with Store.open(folder) as store:
        config, scores = RunConfig.from_json(store.config), store.scores("promotion")
    assert (config.promote, config.promote_decay) == (", ".join(data["rungs"]), "linear_cosine")
    assert len(scores) == data["trained"] // 5 > 0
    for score in scores:
        assert [len(score.curve["tasks"]), score.curve["tasks"][0]["steps"][-1]] == [3, 60]
    best = data["best"]
    assert best["ranks"] == [1.0]
    assert best["promoted"] == [max(score.reward or 0.0 for score in scores)]
    (tmp_path / "none").mkdir()
    assert call(capsys, *line, "--promote", "none", "--out", tmp_path / "none")[0] == 0
    with Store.open(tmp_path / "none") as store:
        assert (store.config["promote"], store.scores("promotion")) == (None, [])


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        (["--promote", "mnist"], "--promote 'mnist' is not known; choose one of: charmlp"),
        (["--promote", "digits#x"], "--promote: 'x' in 'digits#x' is not a number of seeds from 1 to 1000"),
        (["--promote-decay", "square"], "--promote-decay 'square' is not known; choose one of: none, linear, cosine"),
        (["--promote", "digits*0"], "--promote: '0' in 'digits*0' is not a number above 0"),
        (["--promote", "digits*2", "--promote-eta", 1], "--promote-eta 1 is below 2; one rule in so many is promoted"),
    ],
)
def test_ladders_that_cannot_be_had_are_said_before_there_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ladder: list[object], message: str
) -> None:
    status, _, err = call(capsys, "run", "--out", tmp_path / "run", *ladder)
    assert (status, message in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_resume_says_when_versions_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    call(capsys, "run", "--task", "digits", "--trials", 2, "--out", folder, *SMALL)
    with Store.open(folder) as store:
        forge(folder, "meta", {"value": json.dumps({**store.versions, "torch": "1.0"})}, "name = 'versions'")
    status, _, err = call(capsys, "resume", folder, "--trials", 3)
    assert status == 0
    assert "began with other versions (torch 1.0 -> " in err


def test_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "evaluate", "sgd", "g*exp(sign(g)*sign(m))", "--seeds", 2, *SMALL)
    assert status == 0
    assert "evaluating sgd on digits (convnet-2-4), 2 seed(s)" in err
    lines = out.splitlines()
    assert lines[0].split() == ["task", "score", "validation", "test", "loss", "lr", "diverged", "rule"]
    assert {line.split()[-1] for line in lines[1:]} == {"sgd", "g*exp(sign(g)*sign(m))"}
    assert "±: half width of the 95% Student t interval over 2 seeds" in err
    sgd = next(line for line in lines if line.endswith(" sgd"))
    status, out, _ = call(capsys, "evaluate", "sgd", "--seeds", 2, "--json", *SMALL)
    (result,) = json.loads(out)["results"]
    assert f"{result['val_mean']:.4f} ± {result['val_ci']:.4f}" in sgd
    assert result["seeds"] == 2


def test_export_of_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "export", "powersign", "--out", tmp_path / "powersign.py")
    assert (status, out.strip()) == (0, str(tmp_path / "powersign.py"))
    source = (tmp_path / "powersign.py").read_text()
    compile(source, "powersign.py", "exec")
    status, out, _ = call(capsys, "export", "g * exp(sign(g) * sign(m))")
    assert status == 0
    compile(out, "rule.py", "exec")


def test_space(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "space", "--samples", 3)
    assert status == 0
    assert "69,898,899,456" in out
    assert "m_hat" in out
    assert "bias_correction on" in out
    status, again, _ = call(capsys, "space", "--samples", 3)
    assert again == out
    status, out, _ = call(capsys, "space", "--json", "--vocabulary", "icml", "--groups", 1)
    data = json.loads(out)
    assert data["size"] == 154_880
    assert [position["name"] for position in data["positions"]] == ["op1.1", "op2.1", "u1.1", "u2.1", "b.1"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "--version")
    assert status == 0
    assert out.startswith("nos-search ")
    assert "torch" in out


WRONG = [
    (["run", "--task", "mnist"], "--task 'mnist' is not known; choose one of: "),
    (
        ["run", "--strategy", "annealing"],
        "--strategy 'annealing' is not known; choose one of: controller, evolution, random",
    ),
    (["run", "--trials", "-3"], "--trials -3 is below 1"),
    (["run", "--trials", "many"], "argument --trials: invalid int value: 'many'"),
    (["run", "--seconds", "0"], "--seconds 0 is not above 0"),
    (["run", "--workers", "0"], "--workers 0 is below 1"),
    (["run", "--workers", "4", "--executor", "inprocess"], "--workers 4 with --executor inprocess: it has one"),
    (["run", "--executor", "slurm"], "--executor 'slurm' is not known; choose one of: inprocess, fork, loky, ray"),
    (["run", "--device", "tpu"], "--device 'tpu' is not known; choose one of: cpu, cuda"),
    (["run", "--executor", "ray", "--device", "cuda"], "--device cuda with --executor ray needs --gpus-per-trial"),
    (
        ["run", "--executor", "ray", "--gpus-per-trial", "0.5", "--device", "cpu"],
        "--gpus-per-trial 0.5 with --device cpu",
    ),
    (["run", "--ray-address", "auto"], "--ray-address and --gpus-per-trial need --executor ray"),
    (["bench", "speed"], "bench 'speed' is not known; choose one of: child, agreement, overhead, tasks"),
    (
        ["bench", "overhead", "--executors", "x"],
        "--executors 'x' is not known; choose one of: inprocess, fork, loky, ray",
    ),
    (["run", "--seed", "-1"], "--seed -1 is outside"),
    (["run", "--groups", "9"], "groups 9 is outside 1..4"),
    (["run", "--vocabulary", "x"], "vocabulary 'x' is not known; choose one of: icml, arxiv, arxiv-decay"),
    (["run", "--sweep", "x"], "--sweep 'x' is not known; choose one of: fine, halving, full"),
    (["run", "--width", "0"], "--width 0 is below 1"),
    (["run", "--target", "7"], "--target 7 is outside (0, 1]"),
    (["run", "--data-dir", "/no/where", "--task", "fashion"], "/no/where is not a folder"),
    (["run", "--strategy-option", "speed=1"], "strategy 'controller' has no option 'speed'; it has: algorithm"),
    (["run", "--strategy-option", "lr"], "--strategy-option 'lr' is not NAME=VALUE"),
    (["run", "--strategy-option", "lr=fast"], "option lr is 'fast'; it must be a number"),
    (
        ["run", "--gate", "screen=high"],
        "--gate 'screen=high' is not screen=NUMBER or screen=off, for example screen=0.05",
    ),
    (["run", "--gate", "luck=1"], "--gate 'luck' is not known; choose one of: descent, screen, steps"),
    (["run", "--gate", "screen=2"], "gate screen 2 is outside [0, 1]"),
    (["run", "--gate", "steps=99999999999999999999"], "gate steps 99999999999999999999 is above 100000; choose a smal"),
    (["run", "--net", "mlp-1000000000-4"], "--net depth 1000000000 is above 1000; choose a smaller number"),
    (["train", "g", "--net", "mlp-1-999999999999"], "--net width 999999999999 is above 65536"),
    (["run", "--gate", "steps=0"], "gate steps 0 is below 1"),
    (["run", "--gate", "screen=NaN"], "gate screen nan is outside [0, 1]"),
    *(
        (["run", "--strategy-option", f"{option}={value}"], f"option {option} is ")
        for option in ("batch", "hidden", "epochs", "lr", "entropy")
        for value in ("99999999999999999999999999", "1000001")
    ),
    (["run", "--strategy-option", "lr=Infinity"], "option lr is inf; it must be within -1000000..1000000"),
    (["run", "--strategy-option", "entropy=NaN"], "option entropy is nan; it must be within"),
    (["run", "--strategy", "optuna", "--strategy-option", f"window={10**20}"], "option window is 1000000"),
    (["run", "--trial-timeout", "1e300"], "--trial-timeout 1e+300 is above 1e+09 seconds; choose less"),
    (["run", "--seconds", "inf"], "--seconds inf is no limit; leave it out"),
    (["space", "--samples", "-1"], "--samples -1 is below 0; 0 prints none"),
    (["run", "--space", "trees"], "--space 'trees' is not known; choose one of: nos, program"),
    (["space", "--space", "program", "--lines", "1"], "lines 1 is outside 2..7"),
    (["surfaces", "g", "--steps", "0"], "--steps 0 is below 1"),
    (["surfaces", "g", "--plot", "/nowhere/x.svg"], "--plot /nowhere/x.svg cannot be written"),
    (["diagnose", "g", "--trials", "0"], "--trials 0 is below 1"),
    (["diagnose", "g", "--trials", "100001"], "diagnose --trials 100001 is above 100000; choose a smaller number"),
    (["diagnose", "g * gg"], "rule 'g * gg' is not valid"),
    (["evaluate", "g * gg"], "rule 'g * gg' is not valid"),
    (["evaluate", "g +"], "^"),
    (["evaluate", "g", "--tasks", "digits,mnist"], "--tasks 'mnist' is not known"),
    (["evaluate", "g", "--seeds", "0"], "--seeds 0 is below 1"),
    (["evaluate", "g", "--threads", "0"], "--threads 0 is below 1"),
    (["evaluate"], "no RULE: name rule text"),
    (["export", "nonsense"], "rule 'nonsense' is not valid"),
    (["export", "g", "--rank", "0"], "--rank 0 is below 1"),
    (["space", "--groups", "0"], "groups 0 is outside 1..4"),
    (["show", "/no/such/run"], "run folder /no/such/run does not exist; start one with: nos-search run --out"),
    (["resume", "/no/such/run"], "run folder /no/such/run does not exist"),
    (["report", "/no/such/run"], "run folder /no/such/run does not exist"),
    (["fly"], "invalid choice: 'fly'"),
    ([], "required: COMMAND"),
]


COUNTS = {  # every option of the table of bounds, and the commands that take it
    # those of --net are parts of a word
    "--threads": (["run"], ["train", "g"], ["evaluate", "g"], ["prove", "g"]),
    "--workers": (["run"], ["evaluate", "g"], ["prove", "g"], ["bench", "overhead"]),
    "--batch": (["run"],),
    "--promote-eta": (["run"],),
    "--trials": (["run"], ["bench", "overhead"]),
    "--children": (["run"],),
    **dict.fromkeys(("--width", "--sweep-steps", "--train-steps"), (["run"], ["train", "g"], ["evaluate", "g"])),
    "--seeds": (["evaluate", "g"], ["prove", "g"], ["bench", "tasks"], ["bench", "prove"]),
    "--tuning": (["prove", "g"],),
    **dict.fromkeys(("--population", "--generations", "--generation-seeds"), (["constants", "m"],)),
    **dict.fromkeys(("--cases", "--families", "--cells", "--baselines"), (["bench", "prove"],)),
    "--samples": (["space"],),
    "--steps": (["surfaces", "g"], ["bench", "child"]),
    "--rounds": (["bench", "child"],),
    "--rules": (["bench", "agreement"], ["bench", "tasks"]),
    "--times": (["bench", "tasks"],),
}


def test_every_bound_has_its_command() -> None:
    assert {option for option in MOST if option.startswith("--") and " " not in option} == set(COUNTS)


WRONG += [
    ([*line, option, value], f"{option} {value} is above {MOST[option]}; choose a smaller number")
    for option, commands in COUNTS.items()
    for line in commands
    for value in (str(MOST[option] + 1), "99999999999999999999")
]


@pytest.mark.parametrize(("args", "message"), WRONG, ids=[" ".join(args) or "nothing" for args, _ in WRONG])
def test_wrong_usage(args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, the argument named on stderr, nothing on stdout, no traceback, nothing left behind."""
    if args[:1] == ["run"]:
        args = [*args, "--out", str(tmp_path / "run")]
    status, out, err = call(capsys, *args)
    assert status == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--net", "mlp-N"),
        ("--promote", "digits*N"),
        ("--strategy-option", "batch=N"),
        ("--gate", "steps=N"),
        ("--seed", "N"),
    ],
)
def test_numbers_of_more_digits_than_python_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    status, out, err = call(capsys, "run", option, value.replace("N", "9" * 5000), "--out", tmp_path / "run")
    assert (status, out, option.strip("-").partition("-")[0] in err) == (2, "", True), err
    assert not (tmp_path / "run").exists()


def test_bad_rules_show_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = call(capsys, "evaluate", "g * exp(sgn(g))")
    lines = err.splitlines()
    assert lines[-2].strip() == "g * exp(sgn(g))"
    assert lines[-1].index("^") == lines[-2].index("sgn")


def test_run_needs_out(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "run")
    assert status == 2
    assert "--out" in err


def test_folders_in_the_way(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "run", "--out", small_run)
    assert status == 2
    assert "already holds a run; continue it with: nos-search resume" in err
    (tmp_path / "x").write_text("")
    status, _, err = call(capsys, "run", "--out", tmp_path)
    assert status == 2
    assert "is not empty; choose an empty or new folder" in err
    status, _, err = call(capsys, "show", tmp_path)
    assert status == 2
    assert "holds no run (search.db is missing)" in err
    status, _, err = call(capsys, "export", tmp_path)
    assert status == 2
    assert "the folder holds no run" in err
    status, _, err = call(capsys, "report", small_run, "--out", tmp_path / "no" / "page.html")
    assert status == 2
    assert "cannot be written" in err


def test_foreign_and_locked_files_fail_with_1(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "search.db").write_text("something else entirely, long enough to be no header of SQLite" * 10)
    status, _, err = call(capsys, "show", tmp_path)
    assert status == 1
    assert "is not a run of nos-search" in err
    with Store.open(small_run, write=True):
        status, _, err = call(capsys, "resume", small_run)
        assert status == 1
        assert "is in use by another nos-search" in err
        assert call(capsys, "show", small_run)[0] == 0
    status, _, err = call(capsys, "export", small_run, "--rank", 10_000)
    assert status == 1
    assert "none of rank 10000" in err


def test_functions_and_names_are_rules_too(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def mine(p, g, *, lr):\n    return p - lr * g\n"
    status, out, _ = call(capsys, "evaluate", source, "--seeds", 1, *SMALL)
    assert status == 0
    assert out.splitlines()[1].endswith(" mine")
    _, out, _ = call(capsys, "export", source)
    assert "update u" not in out
    _, out, _ = call(capsys, "export", "powersign")
    assert "update u" not in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_display(stream: io.StringIO) -> None:
    """A live table on a terminal, plain lines elsewhere."""
    with Display(stream, limits=Limits(trials=30, rungs=1), clock=Clock()) as display:
        for k in range(30):
            reward = 0.2 + 0.02 * k
            status = "done" if k % 3 else "rejected"
            display.on_start(Trial(k, (), f"g * {k}", f"{k}", 1), 0)
            trial = Trial(k, (), f"g * {k}", f"{k}", 1, status=status, reward=reward, lr=0.1)
            if status == "rejected":
                trial = replace(trial, gates={"static": {"passed": False, "seconds": 0.5}})
            display.on_trial(trial)
        display.on_start(trial, 1)
        score = Score("promotion", trial.rule, trial.key, "digits*4", 1, {"trial": 29, "rung": 1}, "done", 0.8765)
        display.on_promotion(trial, 1, score)
    text = stream.getvalue()
    assert "g * 29" in text
    assert "0.8765" in text
    assert ("trial 29: rung 1 (digits*4) 0.8765  g * 29" in text) == (not stream.isatty())
    for shown in (
        "promoted 1",
        "promotions",
        "proposals",
        "children/h",
        "proposed 30 > static 20",
        "gates 5.0 s",
        "reward",
    ):
        assert (shown in text) == stream.isatty()
    assert ("trial 29: new best 0.7800 at lr 0.1  g * 29" in text) == (not stream.isatty())


@pytest.mark.slow
def test_the_installed_command(tmp_path: Path) -> None:
    """As a process of its own: exit status, streams, and no traceback when the reader goes away."""
    done = nos_search("run", "--task", "digits", "--trials", 3, "--out", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "trials 3:" in done.stdout
    done = nos_search("show", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["trials"] == 3
    done = nos_search("evaluate", "g *")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_space_prints_the_sizes_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "--samples", "2"]) == 0
    text = capsys.readouterr().out
    for size in ("249,696", "69,898,899,456", "21,801,746,335,924,224"):
        assert size in text
    assert main(["space", "--space", "program", "--samples", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "program"
    assert all(sample["rule"].startswith("def rule(") for sample in data["samples"])
    assert main(["space", "--space", "lion"]) == 0
    assert "cosine_sim" in capsys.readouterr().out
    assert main(["space", "--space", "program"]) == 0
    assert "lion" in capsys.readouterr().out


def test_surfaces_as_table_figure_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "rules.svg"
    rules = ["adam", "0-g", "g * exp(sign(g) * sign(m_hat))"]
    assert main(["surfaces", *rules, "--steps", "50", "--plot", str(figure)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[2:4]] == ["adam", "0-g"]
    assert ElementTree.parse(figure).getroot().tag.endswith("svg")
    assert main(["surfaces", *rules, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["score"] > 0.6 > 0.1 > results[1]["score"]
    assert set(results[0]["surfaces"]) >= {"rosenbrock", "beale", "saddle", "plateau"}


def test_a_short_evolution_of_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4", "--trials", "25", "--json"]
    out = str(tmp_path / "run")
    command = ["run", "--strategy", "evolution", "--space", "program", "--gate", "screen=off", "--out", out, *small]
    assert main(command) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["trained"] > 3
    assert data["best"]["rule"].startswith("def rule(p, g")
    assert main(["report", out]) == 0
    assert "gate screen" in Path(capsys.readouterr().out.strip()).read_text()


def test_a_short_run_in_the_space_of_lion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its first child is trained with AdamW, and it goes on in the same space."""
    small = ["--sweep-steps", "4", "--train-steps", "6", "--width", "4", "--trials", "6", "--batch", "6"]
    out = str(tmp_path / "run")
    assert main(["run", "--strategy", "evolution", "--space", "lion", "--out", out, *small]) == 0
    capsys.readouterr()
    assert main(["resume", out, "--trials", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 12
    with Store.open(tmp_path / "run") as store:
        space = make_space(store.config["space"])
        trials = store.trials()
    assert (space.kind, space.config()["vocabulary"]) == ("lion", "lion")
    assert (trials[0].tokens, trials[0].status) == (space.known()["adamw"], "done")
    assert main(["show", out]) == 0
    assert "+ 0.01 * p" in capsys.readouterr().out
    assert main(["report", out]) == 0
    assert "+ 0.01 * p" in Path(capsys.readouterr().out.strip()).read_text()
