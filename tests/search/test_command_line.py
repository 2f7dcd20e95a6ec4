"""How command lines are read, before anything is done: help without torch, words in any order, the lines in the docs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nos_search.cli import _EXTRAS, main, names
from nos_search.cli.arguments import COMMANDS, parse
from tests.waiting import HUNG

from .conftest import environment

ROOT = Path(__file__).resolve().parents[2]
HEAVY = tuple(_EXTRAS)

WITHOUT = """
import importlib.abc, json, sys
names = json.loads(sys.argv[2])
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from nos_search.cli import main
from nos_search.cli.arguments import COMMANDS
for argv in json.loads(sys.argv[1]):
    try:
        status = main(argv)
    except SystemExit as leave:
        status = leave.code or 0
    print("STATUS", argv, status, flush=True)
"""


def without(*lines: list[str], names: tuple[str, ...] = HEAVY) -> subprocess.CompletedProcess[str]:
    """Commands in a process in which packages are not installed."""
    import json

    return subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(lines), json.dumps(names)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=HUNG,
    )


def test_help_needs_numpy_only() -> None:
    lines = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
    done = without(*lines)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if line.startswith("STATUS")] == [f"STATUS {a} 0" for a in lines]
    for command, (about, _) in COMMANDS.items():
        assert f"usage: nos-search {command}" in done.stdout
        assert about.partition(",")[0] in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        ["show", "x"],
        ["run", "--out", "x"],
        ["evaluate", "g"],
        ["prove", "g"],
        ["report", "x"],
        ["export", "g"],
        ["space"],
        ["bench"],
    ],
    ids=lambda line: line[0],
)
def test_commands_name_the_extra_that_they_need(line: list[str]) -> None:
    done = without(line)
    assert done.stdout == f"STATUS {line} 1\n"
    assert done.stderr.count("\n") == 1
    assert re.fullmatch(
        rf'nos-search {line[0]}: this needs \w+, which is not installed; install it with: pip install "nos-ext\[search\]"',
        done.stderr.strip(),
    )


def test_extras_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    extras = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for extra in _EXTRAS.values():
        assert re.search(rf"^{extra} = ", extras, re.M)


def test_names_in_the_help_are_those_of_the_registries() -> None:
    from nos_search.executor import EXECUTORS
    from nos_search.net import NETS
    from nos_search.show.figure import FORMATS
    from nos_search.show.loggers import LOGGERS
    from nos_search.space import SPACES, VOCABULARIES
    from nos_search.strategy import STRATEGIES
    from nos_search.task import TASKS
    from nos_search.train.child import SWEEPS
    from nos_search.train.decay import DECAYS
    from nos_search.train.device import DEVICES
    from nos_search.train.engine import ENGINES
    from nos_search.train.protocols import PROTOCOLS

    there = (
        TASKS, STRATEGIES, SPACES, VOCABULARIES, NETS, SWEEPS, DECAYS, PROTOCOLS, ENGINES, EXECUTORS, DEVICES, FORMATS,
        LOGGERS,
    )  # fmt: skip
    shown = (
        names.TASKS, names.STRATEGIES, names.SPACES, names.VOCABULARIES, names.NETS, names.SWEEPS, names.DECAYS, names.PROTOCOLS,
        names.ENGINES, names.EXECUTORS, names.DEVICES, names.PLOTS, names.LOGGERS,
    )  # fmt: skip
    assert [tuple(table) for table in there] == list(shown)


def test_every_command_has_its_module() -> None:
    from importlib import import_module

    for command in COMMANDS:
        assert callable(import_module(f"nos_search.cli.{command}").call)


INTERRUPTED = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
module, sys.argv[1:] = sys.argv[1], ["space"]
"""
STARTS = {
    "python -m": "import runpy; runpy.run_module('nos_search', run_name='__main__')",
    "the script": "from nos_search.__main__ import run; sys.exit(run())",
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("module", ["nos_search.cli", "nos_ext._C", "numpy", "torch", "nos_search.cli.space"])
def test_ctrl_c_while_modules_are_imported(start: str, module: str) -> None:
    """It ends the process as any program ends: no traceback, and a shell has 130."""
    words = [sys.executable, "-c", f"{INTERRUPTED}\n{STARTS[start]}", module]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=HUNG)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_after_that_is_an_exception_unless_it_is_ignored() -> None:
    code = (
        "import signal, sys\n"
        "if len(sys.argv) > 1: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "import nos_search, nos_search.__main__ as entry\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"  # importing does nothing
        "del sys.argv[1:]; sys.argv.append('bench')\n"
        "assert entry.run() == 0\n"
        "assert signal.getsignal(signal.SIGINT) is before, signal.getsignal(signal.SIGINT)\n"
    )
    for words in ([], ["ignored"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment(), timeout=HUNG
        )
        assert done.returncode == 0, done.stderr


def test_the_script_begins_where_python_m_does() -> None:
    assert 'nos-search = "nos_search.__main__:run"' in (ROOT / "pyproject.toml").read_text()


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, nos_search; assert 'nos_ext' not in sys.modules; assert nos_search.__version__; nos_search.other"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=HUNG)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'nos_search' has no attribute 'other'"


def quoted() -> list[tuple[str, str]]:
    """(file, command line) of every line that the docs tell to type."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    files += [ROOT / "Makefile", *sorted((ROOT / "examples").rglob("*.md"))]
    found = []
    for path in files:
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\$ |\$\(BIN\)/)nos-search (.*)", line)
            if match:
                for part in re.split(r"&&|\|(?![a-z])", "nos-search " + match[1]):
                    if part.strip().startswith("nos-search "):
                        found.append((path.name, part.strip().removeprefix("nos-search ")))
    return found


def test_command_lines_of_the_docs_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    lines = quoted()
    assert len(lines) > 20
    for name, line in lines:
        words = shlex.split(line.replace("$(DEMO)", "runs/demo"), comments=True)
        try:
            parse(words)
        except SystemExit:
            pytest.fail(f"{name}: nos-search {line}: {capsys.readouterr().err}")


def test_words_stand_on_both_sides_of_options() -> None:
    command, args = parse(["evaluate", "runs/ladder", "--top", "5", "adam", "--seeds", "2", "--", "-g", "--known"])
    assert (command, args.rules, args.top, args.seeds) == ("evaluate", ["runs/ladder", "adam", "-g", "--known"], 5, 2)
    assert args.known is False
    _, args = parse(["train", "--lr", "0.1", "--", "-g"])
    assert (args.rule, args.lr) == ("-g", 0.1)
    _, args = parse(["evaluate", "--baseline=-g", "-1 * g"])
    assert (args.baseline, args.rules) == ("-g", ["-1 * g"])
    _, args = parse(["bench", "overhead", "--json", "--trials", "9"])
    assert (args.name, args.rest) == ("overhead", ["--json", "--trials", "9"])


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            ["evaluate", "-g"],
            "; a rule that begins with a minus goes after --, at the end: nos-search evaluate ... -- -g",
        ),
        (["train", "-g*m"], "nos-search train ... -- '-g*m'"),
        (["export", "-g"], "nos-search export ... -- -g"),
        (["evaluate", "g", "--baseline", "-g"], "a value that begins with a minus is given as --baseline=-..."),
    ],
)
def test_rules_that_begin_with_a_minus(line: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(line)
    assert leave.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().endswith(hint)


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
@pytest.mark.parametrize(
    "line",
    [
        ["run", "--out", "nowhere"],
        ["train", "g"],
        ["evaluate", "g"],
        ["prove", "g"],
        ["surfaces", "g"],
        ["diagnose", "g"],
        ["space"],
    ],
)
def test_seeds_are_checked_alike(line: list[str], seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, "--seed", seed]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"nos-search {line[0]}: --seed {seed} is outside 0..2^63-1\n"
    assert not Path("nowhere").exists()
