"""A rule on the command line may be in a file (@FILE) or come by the standard input (-), whatever command takes it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.rules import compile_rule, parse_rule_argument

RULE = "def mine(p, g, m, *, lr):\n    m = 0.9 * m + g  # heavy\n    return p - lr * m, m"
SMALL = ["--train-steps", "2", "--sweep-steps", "2", "--width", "4", "--json"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a rule.txt"
    path.write_bytes(b"\xef\xbb\xbf" + RULE.replace("\n", "\r\n").encode() + b"\r\n")
    return f"@{path}"


def test_a_file_has_the_rule(file: str) -> None:
    found = parse_rule_argument(file)
    assert found.program == compile_rule(RULE).program
    assert (found.label, found.is_update) == ("mine", False)


def test_a_file_may_name_a_rule_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("lion\n")
    assert parse_rule_argument(f"@{tmp_path / 'name'}").text == "lion"


def test_a_comment_makes_no_other_rule_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("# of the library\n\nrmsprop  # as torch has it\n")
    for text in (f"@{tmp_path / 'name'}", "rmsprop # mine"):
        assert parse_rule_argument(text).program == compile_rule("rmsprop").program
    assert parse_rule_argument("(rmsprop) # the operand").program != compile_rule("rmsprop").program


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/nowhere"]) == 2
    assert "rule 'runs/nowhere' is not valid, and there is no run folder of that name: " in capsys.readouterr().err


def test_every_command_that_takes_a_rule_takes_a_file(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surfaces", file, "g", "--steps", "2", "--json"]) == 0
    assert [row["rule"] for row in json.loads(capsys.readouterr().out)["results"]] == ["mine", "g"]
    assert main(["export", file]) == 0
    assert "class Mine(" in capsys.readouterr().out
    assert main(["train", file, "--lr", "0.1", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["rule"] == "mine"


def test_a_baseline_in_a_file_is_one_of_the_rules(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "g", file, file, "--baseline", file, "--seeds", "2", *SMALL]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["baseline"] == parse_rule_argument(file).text
    rows = {row["rule"]: row for row in document["results"]}
    assert list(rows) == ["g", "mine"]
    assert rows["mine"]["difference"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"g *\n", "is not valid: line 1, column 4: syntax error: invalid syntax\n    g *\n       ^"),
        (b"", "is not valid: the text of the rule is empty"),
        (b"\xff\xfe\x00", "cannot be read: it is no text in UTF-8"),
        (b"g" * (2**20 + 1), "cannot be read: it has more than 1048576 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_errors_name_the_file(content: bytes | None, error: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as found:
        parse_rule_argument(f"@{path}")
    assert str(found.value).startswith(f"the rule in {path} {error}")
    for place in ("", str(tmp_path), "\0"):
        with pytest.raises(UsageError, match="cannot be read"):
            parse_rule_argument(f"@{place}")


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [(RULE, 0, "class Mine("), ("g *", 2, "the rule on standard input is not valid: line 1"), ("", 2, "is empty")],
)
@pytest.mark.parametrize("words", [["export", "-"], ["export", "--", "-"]])
def test_a_rule_comes_by_standard_input(
    words: list[str], given: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is run afterwards finds descriptor 0 as it was."""
    (reads, writes), kept = os.pipe(), os.dup(0)
    os.write(writes, given.encode())
    os.close(writes)
    os.dup2(reads, 0)
    try:
        assert main(words) == status
        assert os.read(0, 1) == b""
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reads)
    assert said in "".join(capsys.readouterr())
