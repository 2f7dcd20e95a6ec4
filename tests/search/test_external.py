"""Proposals from a program: the talk with it, what becomes of bad lines and bad programs, and going on with a fresh one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nos_search
from nos_search.cli import main
from nos_search.errors import SearchError, UsageError
from nos_search.executor import Job
from nos_search.gate import Funnel, Gates
from nos_search.run.config import RunConfig
from nos_search.space import Space, TextSpace, make_space
from nos_search.store import Store, Trial
from nos_search.strategy import proposer as talk

from .conftest import StubExecutor, stub_outcome, stub_search

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "external_proposer.py"
OPEN = {"descent": None, "screen": None}
# A proposer that keeps what it is sent, and answers each `ask` by what `answer(n, number)` writes.
LOGGING = """
import json, os, sys
log = open({log!r}, "a")
print(os.getpid(), file=log, flush=True)
number = 0
def say(*texts):
    for text in texts:
        print(json.dumps(text), flush=True)
{answer}
for line in sys.stdin:
    print(line, end="", file=log, flush=True)
    message = json.loads(line)
    if "hello" in message:
        number = message["hello"]["next"]
    if "ask" in message:
        answer(message["ask"], number)
        number += message["ask"]
print(json.dumps({{"end": number}}), file=log, flush=True)
"""
# No two of these are equal; the number of a proposal is in its text.
NUMBERED = "def answer(n, number): say(*(f'g * exp(-{k + 1} * abs(m))' for k in range(number, number + n)))"


def script(folder: Path, text: str) -> str:
    """The command that runs a program; a Python that starts fast."""
    path = folder / f"proposer{len(list(folder.glob('proposer*.py')))}.py"
    path.write_text(text)
    return shlex.join([sys.executable, "-S", "-E", str(path)])


def logging(folder: Path, answer: str = NUMBERED) -> str:
    return script(folder, LOGGING.format(log=str(folder / "log"), answer=answer))


def config(command: str, **changes: Any) -> RunConfig:
    chosen = {"trials": 24, "batch": 8, "gates": OPEN, **changes}
    return RunConfig(strategy="external", command=command, space=TextSpace().config(), **chosen)


def messages(folder: Path) -> list[list[dict[str, Any]]]:
    """What each program that was started was sent, in order, with what it wrote at its end."""
    found: list[list[dict[str, Any]]] = []
    for line in (folder / "log").read_text().splitlines():
        if line.isdigit():
            found.append([])
        else:
            found[-1].append(json.loads(line))
    return found


def told(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message["told"] for message in sent if "told" in message]


def stored(folder: Path) -> list[Trial]:
    with Store.open(folder) as store:
        return store.trials()


# --- the talk --------------------------------------------------------------------------------------------------------


def test_what_a_program_is_sent(tmp_path: Path) -> None:
    chosen = config(logging(tmp_path), score="accuracy", trials=16)
    assert stub_search(tmp_path / "run", chosen, StubExecutor()) == "trials"
    (sent,) = messages(tmp_path)
    hello = sent[0]["hello"]
    assert (hello["protocol"], hello["seed"], hello["next"], hello["answered"]) == (1, 1, 0, 0)
    assert (hello["task"], hello["score"], hello["gates"]) == ("charmlp", "accuracy", OPEN)
    assert {"g", "m_hat", "adam", "lr", "T"} <= hello["space"]["operands"].keys()
    assert hello["space"]["ops"]["exp"]["arguments"] == 1
    assert "def lion(" in hello["space"]["library"]["lion"]
    assert [message["ask"] for message in sent if "ask" in message] == [8, 8]
    # It hears of a batch before it is asked for the next one, and of the last before its input ends.
    kinds = [next(iter(message)) for message in sent]
    assert kinds == ["hello", "ask", *["told"] * 8, "ask", *["told"] * 8, "end"]
    for trial, answer in zip(stored(tmp_path / "run"), told(sent), strict=True):
        outcome = stub_outcome(trial.key)
        assert (trial.rule, trial.reward) == (f"g * exp(-{trial.id + 1} * abs(m))", outcome.reward)
        assert answer == {
            "id": trial.id,
            "rule": trial.rule,
            "verdict": "passed",
            "training": outcome.status,
            "reward": outcome.reward,
            **({} if outcome.lr is None else {"lr": outcome.lr}),
        }


def test_what_stands_between_a_rule_and_a_training_is_told(tmp_path: Path) -> None:
    rules = ["g", "1 * g", "-g", "w", "sign(g)"]
    chosen = config(logging(tmp_path, f"def answer(n, number): say(*{rules})"), batch=5, trials=5)
    executor = StubExecutor(lambda job: "no machine" if job.rule.text == "sign(g)" else None)
    stub_search(tmp_path / "run", replace(chosen, gates=Gates(screen=None).to_json()), executor)
    answers = {answer["rule"]: answer for answer in told(messages(tmp_path)[0])}
    reward = stub_outcome(stored(tmp_path / "run")[0].key).reward
    twin = answers["1 * g"]
    assert (twin["verdict"], twin["duplicate_of"], twin["reward"]) == ("duplicate", 0, reward)
    up, still, failed = answers["-g"], answers["w"], answers["sign(g)"]
    assert (up["verdict"], up["gate"], up["reason"], up["reward"]) == ("rejected", "descent", "does not descend", 0.0)
    assert (still["gate"], still["reason"]) == ("effect", "gradient has no effect")
    assert (failed["verdict"], failed["training"], failed["reason"]) == ("passed", "failed", "no machine")
    assert failed["reward"] is None


STATES = [f"s{k}" for k in range(8)]
MANY = f"def f(p, g, {', '.join(STATES)}, *, lr): return p - lr * g * s0, {', '.join(f'g + {s}' for s in STATES)}"
WITH_COMMENT = "def f(p, g, m, *, lr):\n    '''A rule.'''\n\tm = m + g  # sums\n    return p - lr * m, m\n"
WITH_COMMENT = WITH_COMMENT.replace("\t", "    ")


@pytest.mark.parametrize(
    ("line", "reason", "form"),
    [
        (json.dumps("g *"), "line 1, column 4: syntax error: invalid syntax\n    g *\n       ^", ""),
        (json.dumps("g * gg"), "did you mean 'g'?\n    g * gg\n        ^", ""),
        (json.dumps("g \xd7 m"), "invalid character '\xd7' (U+00D7)\n    g \xd7 m\n      ^", ""),
        (json.dumps("\ud800g\x1b[2J"), "cannot be part of a text", ""),
        (json.dumps("g + " * 30_000 + "g"), "120001 characters", ""),
        (json.dumps("(" * 5000 + "g"), "", ""),
        (json.dumps(MANY), "it has 8 states; a search takes 7", ""),
        (json.dumps("orthogonalize(g)"), "which a search cannot score", ""),
        (json.dumps("drop(g, lr)"), "that gates can try: rule 'rule' cannot run at many learning rates at once", ""),
        ("loading the model ...", "line 1, column 9", "not JSON: Expecting value"),
        ("\xff\xfe", "", "not JSON"),
        ("", "the text of the rule is empty", "not JSON"),
        ("[" * 100_000, "", "not JSON"),
        ("[]", "", "not a JSON string"),
        ("null", "unknown name 'null'", "not a JSON string"),
        ('{"rule": "g"}', "", "not a JSON string"),
        ('[["g"]]', "", "not a JSON string"),
    ],
)
def test_a_bad_line_is_answered(line: str, reason: str, form: str, tmp_path: Path) -> None:
    answer = f"def answer(n, number):\n    sys.stdout.buffer.write({line.encode('latin1', 'replace')!r} + b'\\n')\n    say('g')"
    executor = StubExecutor()
    assert stub_search(tmp_path / "run", config(logging(tmp_path, answer), batch=2, trials=2), executor) == "trials"
    bad, good = told(messages(tmp_path)[0])
    assert (bad["verdict"], bad["gate"], bad["reward"]) == ("rejected", "static", 0.0)
    assert bad["reason"].startswith("not a rule")
    assert reason in bad["reason"]
    assert form in bad.get("line", "")
    assert bool(form) == ("line" in bad)
    assert (good["rule"], good["verdict"]) == ("g", "passed")
    first, second = stored(tmp_path / "run")  # what cannot be kept was made fit to be kept
    assert (first.status, second.status) == ("rejected", "done")
    assert first.metrics == second.metrics == {"bad_lines": 1.0}
    assert len(executor.jobs) == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  g * exp(sign(g))\n", "g * exp(sign(g))"),
        ("g  # as it is", "def rule(p, g, *, lr):\n    return p - lr * g"),
        (WITH_COMMENT, "def f(p, g, m, *, lr):\n    m = m + g\n    return p - lr * m, m"),
        ("lion", None),
        ("(adam)", "(adam)"),
        ("def f(p, g, *, lr): return p - lr * g / norm(g)", "def f(p, g, *, lr): return p - lr * g / norm(g)"),
    ],
)
def test_rules_are_kept_as_text(text: str, kept: str | None, tmp_path: Path) -> None:
    stub = StubExecutor()
    stub_search(
        tmp_path / "run", config(logging(tmp_path, f"def answer(n, k): say({text!r})"), batch=1, trials=1), stub
    )
    (trial,) = stored(tmp_path / "run")
    assert trial.rule == (kept or nos_search.rules.compile_rule(text).program.to_text().strip())
    (job,) = stub.jobs
    assert job.rule.key == nos_search.rules.compile_rule(text).key


def test_lists_and_lines_may_be_mixed_and_what_comes_early_is_kept(tmp_path: Path) -> None:
    answer = """
def answer(n, number):
    if number == 0:
        say(["g", "2 * m"], "m / 3", ["v * g", "g - m", "g + m"])  # two more than asked for
    else:
        assert n == 2, n
        say("g * sqrt(v)", "m * sqrt(v)")
"""
    stub_search(tmp_path / "run", config(logging(tmp_path, answer), batch=4, trials=8), StubExecutor())
    rules = ["g", "2 * m", "m / 3", "v * g", "g - m", "g + m", "g * sqrt(v)", "m * sqrt(v)"]
    assert [trial.rule for trial in stored(tmp_path / "run")] == rules
    assert [message["ask"] for message in messages(tmp_path)[0] if "ask" in message] == [4, 2]


def test_its_standard_error_passes_through(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = f"{NUMBERED}\nprint('thinking', file=sys.stderr)"
    stub_search(tmp_path / "run", config(logging(tmp_path, answer), trials=2), StubExecutor())
    assert capfd.readouterr().err == "thinking\n"


# --- programs that fail ----------------------------------------------------------------------------------------------


FLOOD = "k = 0\nwhile True:\n    k += 1\n    print('\"g * exp(m *', k, ')\"')"


def test_a_program_that_floods_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes for ever and reads nothing: what is not needed yet stays in the pipe."""
    monkeypatch.setattr(talk, "_GRACE", 0.1)
    assert stub_search(tmp_path / "run", config(script(tmp_path, FLOOD), trials=64), StubExecutor()) == "trials"
    assert [trial.rule for trial in stored(tmp_path / "run")] == [f"g * exp(m * {k + 1} )" for k in range(64)]


def test_a_program_that_never_reads_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "_GRACE", 0.1)
    program, sent = talk.Proposer(script(tmp_path, FLOOD), timeout=0.3), []

    def talks() -> None:
        while len(sent) < 256:
            program.tell({"told": "x" * 2**16})
            sent.extend(program.ask(1))

    with pytest.raises(SearchError, match=r"does not read its standard input: nothing in 0\.3 seconds"):
        talks()
    program.close()
    assert 16 <= len(sent) < 64  # a megabyte waits, and what the pipe holds


def test_a_program_may_close_its_input(tmp_path: Path) -> None:
    command = script(
        tmp_path, "import os\nos.close(0)\nfor k in range(200): print(f'\"g * exp(m * {k})\"', flush=True)"
    )
    assert stub_search(tmp_path / "run", config(command, trials=64), StubExecutor()) == "trials"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import sys; sys.exit(3)", r"ended with exit status 3 with 8 of 8 proposals owed"),
        ("print('\"g\"'); print('\"m\"', end='')", r"ended with exit status 0 with 6 of 8 proposals owed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"ended by signal 9"),
        ("import os, sys; os.close(1)\nfor line in sys.stdin: pass", r"closed its standard output with 8 of 8"),
        (
            "print('\"g\"', flush=True)\nimport sys\nfor line in sys.stdin: pass",
            r"silent for 0\.5 seconds with [78] of 8",
        ),
        ("while True: print('g', end='')", r"a line of more than 4096 bytes"),
    ],
)
def test_a_program_that_fails(text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how. What was answered before is kept, and a run goes on with a program that is mended."""
    monkeypatch.setattr(talk, "_LONGEST_LINE", 4096)
    monkeypatch.setattr(talk, "_GRACE", 0.5)
    good = config(logging(tmp_path))
    impatient = {"timeout": 0.5} if "silent" in error else {}
    bad = replace(good, command=script(tmp_path, text), strategy_options=impatient)
    with pytest.raises(SearchError, match=error) as found:
        stub_search(tmp_path / "run", bad, StubExecutor())
    assert "--command" in str(found.value)
    with Store.open(tmp_path / "run") as store:
        assert store.state == "failed"
    assert stub_search(tmp_path / "run", good, StubExecutor()) == "trials"
    assert sum(trial.told is not None for trial in stored(tmp_path / "run")) == 24


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("sys.exit(3)", r"ended with exit status 3 with 3 of 8 proposals owed"),
        ("import time; time.sleep(60)", r"silent for 0\.5 seconds with 3 of 8 proposals owed"),
    ],
)
def test_what_was_proposed_before_the_end_is_answered(
    slots: int, end: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends in the middle of a batch: its five rules are trained, also where several train at a time and
    the loop asks ahead."""
    monkeypatch.setattr(talk, "_GRACE", 0.1)
    answer = f"{NUMBERED}\ndef some(n, number):\n    say_all(5, number)\n    {end}"
    answer = answer.replace("def answer", "def say_all").replace("def some", "def answer")
    chosen = replace(config(logging(tmp_path, answer)), strategy_options={"timeout": 0.5})
    executor = StubExecutor(slots=slots)
    with pytest.raises(SearchError, match=error):
        stub_search(tmp_path / "run", chosen, executor)
    trials = stored(tmp_path / "run")
    assert [trial.rule for trial in trials] == [f"g * exp(-{k + 1} * abs(m))" for k in range(5)]
    assert [trial.reward for trial in trials] == [stub_outcome(trial.key).reward for trial in trials]
    assert all(trial.told is not None for trial in trials)
    with Store.open(tmp_path / "run") as store:
        assert store.state == "failed"
    good = replace(chosen, command=logging(tmp_path), strategy_options={})
    assert stub_search(tmp_path / "run", good, StubExecutor()) == "trials"
    assert [trial.id for trial in stored(tmp_path / "run")] == list(range(24 + 5))[: len(stored(tmp_path / "run"))]
    assert len(stored(tmp_path / "run")) >= 24


def test_the_time_limit_may_change_when_a_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else of the strategy may."""
    slow = f"{NUMBERED}\nimport time\ntime.sleep(2)"
    folder, small = tmp_path / "run", {"sweep_steps": 2, "train_steps": 2, "width": 4}
    chosen = config(logging(tmp_path, slow), task="digits", trials=2, strategy_options={"timeout": 0.1}, **small)
    with pytest.raises(SearchError, match=r"silent for 0\.1 seconds"):
        stub_search(folder, chosen, StubExecutor())
    run = nos_search.load(folder)
    with pytest.raises(SearchError, match=r"silent for 0\.1 seconds"):
        run.resume(command=chosen.command)
    run.resume(command=chosen.command, strategy_options={"timeout": 60})
    assert sum(trial.told is not None for trial in run.trials()) >= 2
    words = ["resume", str(folder), "--command", chosen.command or "", "--trials", "12", "--strategy-option"]
    assert main([*words, "timeout=50"]) == 0
    with Store.open(folder) as store:
        assert store.config["strategy_options"] == {"timeout": 50}
    for option, said in (
        ("pace=3", "--strategy-option pace: it decides what external proposes in this run; change timeout alone"),
        ("timeout=0", "external option timeout 0 is not a number of seconds above 0"),
        ("timeout=x", "option timeout is 'x'; it must be a number"),
    ):
        assert main([*words, option]) == 2
        assert said in capsys.readouterr().err
    other = nos_search.search("digits", strategy="evolution", trials=2, out=tmp_path / "other", **small)
    with pytest.raises(UsageError, match="population: it decides what evolution proposes in this run; leave it out"):
        other.resume(trials=3, strategy_options={"population": 5})
    with pytest.raises(UsageError, match="strategy_options is a list; give a dict"):
        other.resume(trials=3, strategy_options=[5])


def test_no_program_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that ends with its input, nor one that does not end."""
    monkeypatch.setattr(talk, "_GRACE", 0.2)
    deaf = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stays = f"{deaf}{LOGGING.format(log=str(tmp_path / 'log'), answer=NUMBERED)}\nwhile True: time.sleep(1)"
    for command in (logging(tmp_path), script(tmp_path, stays)):
        stub_search(tmp_path / f"run{len(list(tmp_path.glob('run*')))}", config(command), StubExecutor())
    pids = [int(line) for line in (tmp_path / "log").read_text().splitlines() if line.isdigit()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_fresh_program_is_told_all_that_was_answered(tmp_path: Path) -> None:
    run = config(logging(tmp_path))

    def fault(job: Job) -> str | None:
        if job.number == 11:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        stub_search(tmp_path / "run", run, StubExecutor(fault))
    before = stored(tmp_path / "run")
    answered = [trial for trial in before if trial.told is not None]
    assert 0 < len(answered) < len(before) == 16
    assert stub_search(tmp_path / "run", run, StubExecutor()) == "trials"
    first, second = messages(tmp_path)
    assert told(first) == told(second)[: len(told(first))]
    hello = second[0]["hello"]
    # What was open is trained at once, without the program; it is started when it is needed, and knows all of it.
    assert (hello["next"], hello["answered"]) == (16, 16)
    assert [answer["id"] for answer in told(second)] == list(range(24))
    trials = stored(tmp_path / "run")
    assert [trial.rule for trial in trials] == [f"g * exp(-{k + 1} * abs(m))" for k in range(24)]
    assert [answer["reward"] for answer in told(second)] == [trial.reward for trial in trials]
    whole = tmp_path / "whole"
    stub_search(whole, run, StubExecutor())
    assert [(t.rule, t.key, t.status, t.reward) for t in stored(whole)] == [
        (t.rule, t.key, t.status, t.reward) for t in trials
    ]


def test_bad_lines_are_still_counted_after_that(tmp_path: Path) -> None:
    run = config(logging(tmp_path, "def answer(n, number): say('g', 'gg', *['m'] * (n - 2))"), trials=8)
    stub_search(tmp_path / "run", run, StubExecutor())
    stub_search(tmp_path / "run", replace(run, trials=16), StubExecutor())
    assert [trial.metrics["bad_lines"] for trial in stored(tmp_path / "run")][7::8] == [1.0, 2.0]


def test_a_folder_starts_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be anyone's; whoever goes on says the command again, which may be another."""
    folder, old, new = tmp_path / "run", logging(tmp_path), logging(tmp_path)
    stub_search(folder, config(old, task="digits", trials=2), StubExecutor())
    started = len(messages(tmp_path))
    assert main(["resume", str(folder), "--trials", "9"]) == 2
    said = capsys.readouterr().err
    assert "and may be anyone's" in said
    assert said.endswith(f"nos-search resume {folder} --command {shlex.quote(old)}\n")
    with pytest.raises(UsageError, match="may be anyone's"):
        nos_search.load(folder).resume(trials=9)
    assert len(messages(tmp_path)) == started
    small = {"sweep_steps": 2, "train_steps": 2, "width": 4}
    with Store.open(folder, write=True) as store:
        store.set_config(store.config | small)
    assert main(["resume", str(folder), "--trials", "9", "--command", new]) == 0
    assert len(stored(folder)) >= 9
    with Store.open(folder) as store:
        assert store.config["command"] == new


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--strategy", "external"], "--strategy external needs --command"),
        (["--command", "true"], "--command with --strategy controller: it proposes rules itself"),
        (["--strategy", "external", "--command", "true", "--space", "program"], "--space program with --strategy ext"),
        (["--strategy", "random", "--space", "text"], "--space text with --strategy random"),
        (["--strategy", "external", "--command", "no-such-program -x"], "there is no program 'no-such-program'"),
        (["--strategy", "external", "--command", "python 'x"], "cannot be read: No closing quotation"),
        (["--strategy", "external", "--command", ""], "--command '' is empty"),
        (
            ["--strategy", "external", "--command", "true", "--strategy-option", "timeout=0"],
            "external option timeout 0",
        ),
    ],
)
def test_wrong_usage(words: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--task", "digits", "--out", str(tmp_path / "run"), *words]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole run of it by the command, and everything that shows a run shows it."""
    folder, command = tmp_path / "run", f"{shlex.quote(sys.executable)} {shlex.quote(str(EXAMPLE))}"
    small = ["--sweep-steps", "2", "--train-steps", "3", "--width", "4", "--batch", "16"]
    words = ["run", "--task", "digits", "--strategy", "external", "--command", command, "--trials", "48", *small]
    assert main([*words, "--out", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["strategy"], shown["trials"]) == ("external", 48)
    trials = stored(folder)
    assert trials[-1].metrics["bad_lines"] <= 3
    assert len({trial.rule for trial in trials if trial.status == "done"}) > 8
    assert main(["report", str(folder), "--no-baselines"]) == 0
    for form in ("torch", "csv", "curves"):
        assert main(["export", str(folder), "--format", form]) == 0
    assert "trials 48" not in capsys.readouterr().err


def test_the_example_climbs() -> None:
    """It changes what was good: when long rules are, its rules get longer."""

    def length(program: Any, seed: int) -> float:
        return min(1.0, len(program) / 60)

    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(EXAMPLE))}"
    run = nos_search.search(objective=length, strategy="external", command=command, trials=192, batch=16, gates=OPEN)
    assert run.best(1)[0].reward > 1.5 * max(trial.reward or 0.0 for trial in run.trials()[:5])


def test_the_space_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "--space", "text"]) == 0
    shown = capsys.readouterr().out
    assert "moving average of g" in shown
    assert "global_norm" in shown
    assert main(["space", "--space", "text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == 7


# --- the space and its gates -----------------------------------------------------------------------------------------


def test_text_is_spelled_by_its_characters() -> None:
    space = make_space({"kind": "text"})
    assert isinstance(space, TextSpace)
    assert space.config() == {"kind": "text"}
    for text in ("g", "g * é", "\U0010ffff", ""):
        assert space.text(space.check(space.spell(text))) == text
    for wrong in ((0x110000,), (-1,), (97,) * 65_537):
        assert not space.holds(wrong)
        with pytest.raises(UsageError, match="are not the numbers of at most 65536 characters"):
            space.check(wrong)


def test_what_draws_strings_is_refused() -> None:
    space, tokens, generator = TextSpace(), (103,), torch.Generator()
    for call in (
        space.size,
        lambda: space.sample(generator),
        lambda: space.mutate(tokens, generator),
        lambda: space.crossover(tokens, tokens, generator),
        lambda: space.repair(tokens),
        lambda: space.mask(()),
        lambda: space.live(tokens),
    ):
        with pytest.raises(UsageError, match="its rules come by --strategy external"):
            call()
    assert list(space.founders()) == []
    with pytest.raises(UsageError, match="space 'nos' has none; use 'text'"):
        nos_search.strategy.create("external", Space(), seed=1)


def test_gates_take_rules_whose_names_are_their_own() -> None:
    """The gates give a rule one more state, whose name must be free."""
    body = "def f(p, g, {0}, *, lr, {1}=0.5):\n    {0} = 0.9 * {0} + g\n    return p - lr * {1} * {0}, {0}"
    space = TextSpace()
    for names in (("learning_rate", "learning_rate_"), ("update", "update_"), ("update_", "update")):
        plain, own = Funnel(space).admit([space.spell(body.format(*each)) for each in (("m", "a"), names)])
        assert (plain.status, own.status) == ("passed", "duplicate")
        (alone,) = Funnel(space).admit([own.tokens])
        assert (alone.status, alone.fingerprint, alone.score) == ("passed", plain.fingerprint, plain.score)
