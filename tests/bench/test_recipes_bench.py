"""The bench of the recipes: how rates are found, small comparisons with real trainings, and the page of the record."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import recipe_data, recipes
from nos_search.task import fashion

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "examples" / "recipes" / "found.txt"
PAGE = ROOT / "examples" / "recipes" / "README.md"
RECORD = ROOT / "bench" / "results" / "recipes.json"


class Pretended(recipes.Trainings):
    """Trainings whose loss is least at the lattice number `best`, and which diverge above `limit`."""

    best, limit = 0, 99
    tried: list[int]

    def train(self, rule: str, wanted: Iterable[tuple[int, int]]) -> list[dict[str, float] | None]:
        rates = [rate for rate, _ in wanted]
        self.tried.extend(rates)
        return [None if rate > self.limit else {"validation_loss": 1.0 + (rate - self.best) ** 2} for rate in rates]


@pytest.mark.parametrize(("best", "limit", "found"), [(-5, 99, -5), (4, 99, 4), (-15, 99, -15), (0, -4, -4)])
def test_the_best_rate_is_found_within_and_beyond_the_decades(best: int, limit: int, found: int) -> None:
    trainings = Pretended("gpt", recipe_data.Data([], []), Path(), 1)
    object.__setattr__(trainings, "tried", [])
    Pretended.best, Pretended.limit = best, limit
    assert trainings.tune("sgd") == found
    assert len(trainings.tried) == len(set(trainings.tried))
    assert {found - 1, found + 1} <= set(trainings.tried)


def test_trainings_are_kept_and_the_table_has_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--depth 1 --width 8 --heads 1 --context 8 --batch-size 2 --epochs 2 --epoch-steps 2"
    monkeypatch.setitem(recipes.RECIPES, "gpt", replace(recipes.RECIPES["gpt"], data=_few_words, options=small))
    monkeypatch.setattr(recipes.Trainings, "tune", lambda self, rule: {"sgd": -6, "sign(g)": 12}[rule])
    given = ["gpt", "--rules", "sgd,sign(g)", "--seeds", "2", "--out", str(tmp_path / "out")]
    written = []
    for _ in range(2):
        assert recipes.main([*given, "--json", str(tmp_path / "all.json")]) == 0
        table = capsys.readouterr().out
        results = sorted((tmp_path / "out" / "gpt").glob("*/result.json"))
        written.append([(path, path.stat().st_mtime_ns) for path in results])
    assert len(written[0]) == 4
    assert written[0] == written[1]  # the second call found all
    path = results[0]  # as after an interruption between two epochs
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "history": whole["history"][:1]}))
    assert recipes.main(given) == 0
    capsys.readouterr()
    assert [row["loss"] for row in json.loads(path.read_text())["history"]] == [row["loss"] for row in whole["history"]]
    assert "| sgd | 0.01 |" in table
    page = tmp_path / "page.md"
    page.write_text(f"above\n{recipes.BEGIN}\nold\n{recipes.END}\nbelow\n")
    assert recipes.main(["--show", str(tmp_path / "all.json"), "--write", str(page)]) == 0
    assert capsys.readouterr().out in page.read_text()
    assert table.strip().split("\n\n")[1] in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().startswith("above\n")
    assert page.read_text().endswith("\nbelow\n")
    sgd, sign = json.loads((tmp_path / "all.json").read_text())["recipes"]["gpt"]["rows"]
    assert len(sgd["validation_loss"]) == 2
    assert sgd["diverged"] == 0
    assert sign["rule"] == "sign(g)"


def _few_words(folder: Path, _data_dir: Path | None) -> recipe_data.Data:
    (folder / "text").write_text("in the beginning " * 40, encoding="utf-8")
    return recipe_data.Data([str(folder / "text")], [str(folder / "text")])


@pytest.fixture
def small_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Idx files of 60 and 10 images whose class is their brightness, of which 20 are held out and 30 are to tune on."""
    folder = tmp_path / "idx"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for name, count in (("train", 60), ("t10k", 10)):
        classes = (np.arange(count) % 10).astype(np.uint8)
        images = (classes[:, None, None] * 25 + draws.integers(0, 25, (count, 28, 28))).astype(np.uint8)
        for kind, array, magic in (("images-idx3", images, 0x803), ("labels-idx1", classes, 0x801)):
            head = b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape))
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    monkeypatch.setattr(fashion, "_HELD_OUT", 20)
    monkeypatch.setattr(recipe_data, "TUNED_ON", 30)
    small = "--net wrn-10-1 --batch-size 10 --epochs 1 --hold-out 20"
    monkeypatch.setitem(recipes.RECIPES, "fashion", replace(recipes.RECIPES["fashion"], options=small))
    return folder


def test_clothes_lie_in_the_layout_of_cifar10(small_fashion: Path, tmp_path: Path) -> None:
    read_images = runpy.run_path(str(ROOT / "examples" / "recipes" / "cifar10.py"))["read_images"]
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    found = fashion.arrays(small_fashion)
    (reported,), (tuning,) = recipe_data.clothes(tmp_path, small_fashion)
    images, classes = (x.numpy() for x in read_images(Path(reported), batches))
    assert images.shape == (60, 3, 32, 32)
    assert (images[:, :, 2:30, 2:30] == np.concatenate([found["train_x"], found["val_x"]])[:, None]).all()
    assert images.astype(int).sum() == images[:, :, 2:30, 2:30].astype(int).sum()  # black around
    assert classes.tolist() == [i % 10 for i in range(60)]
    images, classes = read_images(Path(reported), ["test_batch"])
    assert (images[:, 0, 2:30, 2:30].numpy() == found["test_x"]).all()
    images, classes = read_images(Path(tuning), batches)
    wanted = np.concatenate([found["train_x"][:30], found["val_x"]])
    assert (images[:, 1, 2:30, 2:30].numpy() == wanted).all()
    seen = {image.tobytes() for name in batches for image in read_images(Path(tuning), [name])[0].numpy()}
    last = read_images(Path(tuning), ["test_batch"])[0].numpy()
    assert {image.tobytes() for image in last} <= seen  # no test image


def test_rates_are_chosen_on_held_out_clothes(
    small_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipes, "_DECADES", range(-3, -2, 3))
    rule = tmp_path / "mine.txt"
    rule.write_text("sign(g)\n")
    out = tmp_path / "out"
    given = ["fashion", "--rules", f"@{rule}", "--seeds", "1", "--out", str(out), "--data-dir", str(small_fashion)]
    assert recipes.main([*given, "--json", str(tmp_path / "all.json")]) == 0
    assert "| mine | " in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "all.json").read_text())["recipes"]["fashion"]["rows"]
    assert row["text"] == "sign(g)"
    results = [json.loads(path.read_text()) for path in out.glob("fashion/*/result.json")]
    tuned = {each["options"]["lr"]: each for each in results if each["options"]["seed"] == recipes.TUNING_SEED}
    (reported,) = [each for each in results if each["options"]["seed"] == 0]
    best = max(each["history"][-1]["accuracy"] for each in tuned.values())
    assert tuned[row["lr"]]["history"][-1]["accuracy"] == best
    assert {Path(each["options"]["data"]).name for each in tuned.values()} == {"tuning"}
    assert Path(reported["options"]["data"]).name == "reported"
    assert row["test_accuracy"] == [reported["test_accuracy"]]
    unfinished = {name: value for name, value in reported.items() if name != "test_accuracy"}
    path = next(path for path in out.glob("fashion/*-0/result.json"))
    path.write_text(json.dumps(unfinished))  # as after an interruption before the test images
    assert recipes.main(given) == 0
    assert json.loads(path.read_text())["test_accuracy"] == reported["test_accuracy"]


def test_data_that_are_missing_and_recipes_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, says in (
        (["fashion", "--data-dir", str(tmp_path)], "it must hold the four Fashion-MNIST files"),
        (["fashoin"], "RECIPE fashoin: pass some of gpt, translation, fashion"),
        ([], "or --show FILE alone"),
        (["--show", str(tmp_path / "none.json")], "none.json"),
        (["--show", str(PAGE)], "Expecting value"),
        (["--show", str(RECORD), "--write", str(FOUND)], "it has no <!-- bench.recipes:begin -->"),
        (["--show", str(RECORD.with_name("proof-long.json"))], "is no record of this bench in format 1"),
        (["gpt", "--rules", f"@{tmp_path / 'none.txt'}"], "none.txt"),
    ):
        with pytest.raises(SystemExit, match="2"):
            recipes.main(given)
        assert says in capsys.readouterr().err


def test_a_row_says_how_many_trainings_diverged() -> None:
    rows = [
        {"rule": "a", "lr": 0.1, "diverged": 1, "test_accuracy": [80.0, 82.0], "accuracy": [1.0, 1.0]},
        {"rule": "b", "lr": 0.1, "diverged": 0, "test_accuracy": [90.0, 92.0], "accuracy": [1.0, 1.0]},
        {"rule": "c", "lr": 0.1, "diverged": 2, "test_accuracy": [], "accuracy": []},
    ]
    lines = recipes.as_table("fashion", rows).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| b", "| a", "| c"]  # the most accurate first
    assert ", 1 diverged |" in lines[1]
    assert lines[2] == "| c | 0.1 | diverged | diverged |"


def test_the_found_rule_is_one_that_a_proof_has_on_record() -> None:
    proof = json.loads((ROOT / "bench" / "results" / "proof-long.json").read_text())
    assert FOUND.read_text(encoding="utf-8").strip() in [rule["rule"] for rule in proof["rules"]]


def test_the_page_has_what_the_record_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    shown = page.split(recipes.BEGIN)[1].split(recipes.END)[0].strip()
    assert shown == recipes.page(record), "python -m bench.recipes --show RECORD --write PAGE makes it so"
    for name, part in record["recipes"].items():
        recipe = recipes.RECIPES[name]
        assert part["command"] == f"{recipe.file} {recipe.options}", "the record is of other options; record it again"
        assert {row["text"] for row in part["rows"] if row["rule"] == "found"} == {FOUND.read_text().strip()}
