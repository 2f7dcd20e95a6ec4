"""--augment: images that move and are mirrored, the same for every rule, engine and stack; and what cannot be augmented."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nos_ext import _C
from nos_search.cli import main
from nos_search.errors import UsageError
from nos_search.rules import compile_rule
from nos_search.task import TASKS, Task, load
from nos_search.train import native
from nos_search.train.augment import augmented, reach
from nos_search.train.matrices import MatrixTraining, NativeMatrixTraining
from nos_search.train.native import NativeTraining
from nos_search.train.stack import Stack
from nos_search.train.training import Batches, Training

FLAG = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]]  # two channels, 2x3


def seen(image: list[list[list[float]]], down: int, right: int, mirrored: bool) -> list[list[list[float]]]:
    """The image moved down and right, pixel by pixel, and then mirrored."""
    height, width = len(image[0]), len(image[0][0])
    found = []
    for channel in image:
        rows = [
            [
                channel[y - down][x - right] if 0 <= y - down < height and 0 <= x - right < width else 0.0
                for x in range(width)
            ]
            for y in range(height)
        ]
        found.append([row[::-1] for row in rows] if mirrored else rows)
    return found


@pytest.mark.parametrize("mirrors", [False, True])
def test_images_move_by_a_pixel_and_are_mirrored(mirrors: bool) -> None:
    """Each is one of those that were made here; all of them come up, about equally often, and no two channels of an image
    part."""
    wanted = {
        json.dumps(seen(FLAG, down, right, mirrored))
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        for mirrored in {False, mirrors}
    }
    assert len(wanted) == 9 * (1 + mirrors)
    batch = torch.tensor([FLAG] * 1800)
    found = Counter(json.dumps(each) for each in augmented(batch, mirrors=mirrors, seed=1, steps=range(1)).tolist())
    assert found.keys() == wanted
    mean = 1800 / len(wanted)
    assert all(0.7 * mean < count < 1.3 * mean for count in found.values())


def test_how_far() -> None:
    assert [reach(side) for side in (2, 8, 14, 28, 32)] == [1, 1, 1, 3, 4]
    wide = torch.zeros(500, 1, 8, 32)
    wide[:, 0, 4, 16] = 1.0
    places = augmented(wide, mirrors=False, seed=1, steps=range(1)).nonzero()[:, 2:]
    assert places.min(0).values.tolist() == [3, 12]
    assert places.max(0).values.tolist() == [5, 20]


def test_what_is_drawn_depends_on_seed_and_step_alone() -> None:
    batch = torch.arange(400.0).reshape(4, 1, 10, 10)

    def of(seed: int, step: int) -> Tensor:
        return augmented(batch, mirrors=True, seed=seed, steps=range(step, step + 1))

    torch.manual_seed(5)
    first = of(1, 0)
    torch.manual_seed(6)
    assert torch.equal(of(1, 0), first)
    assert not torch.equal(of(1, 1), first)
    both = augmented(torch.cat([batch, batch]), mirrors=True, seed=1, steps=range(2))
    assert torch.equal(both, torch.cat([first, of(1, 1)]))
    assert not torch.equal(of(2, 0), first)


def small(name: str = "digits", **options: object) -> Task:
    return load(name).with_options(width=4, train_steps=12, augment=True, **options)  # type: ignore[arg-type]


def test_batches_are_those_of_without_but_for_the_moves() -> None:
    task = small()
    plain = replace(task, augment=False)
    one, two, other = Batches(task, 3), Batches(task, 3), Batches(plain, 3)
    for step in range(13):  # into the second epoch
        x, y = one.examples()
        again, _ = two.examples()
        still, same = other.examples()
        assert torch.equal(x, again)
        assert torch.equal(y, same)
        assert torch.equal(x, augmented(still, mirrors=False, seed=3, steps=range(step, step + 1)))
        assert not torch.equal(x, still)


@pytest.mark.skipif(_C.child_kernels() is None, reason="needs fused multiply-adds")
@pytest.mark.parametrize("rule", ["g", "muon"])
def test_engines_and_stacks_see_the_same_images(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of the first steps agree to rounding, and are others than those without augmentation. The kernels get their
    images in pieces, here of two steps."""
    task = small("digits")
    monkeypatch.setattr(native, "_NUMBERS", 2 * 100 * 64)
    compiled = compile_rule(rule, matrices=True)
    kinds = (Training, NativeTraining) if rule == "g" else (MatrixTraining, NativeMatrixTraining)
    trainings = [kind(compiled, task, lr=0.03, total_steps=12, seed=3) for kind in kinds]
    plain = kinds[0](compiled, replace(task, augment=False), lr=0.03, total_steps=12, seed=3)
    for until in (1, 2, 7):
        for training in (*trainings, plain):
            assert training.run(until)
            assert training.step == until
        assert trainings[1].loss == pytest.approx(trainings[0].loss, rel=1e-4)
        assert plain.loss != pytest.approx(trainings[0].loss, rel=1e-3)
    one, two = (training.measure(task.val) for training in trainings)
    assert one.loss == pytest.approx(two.loss, rel=2e-3)
    if rule == "g":
        stack = Stack([compiled] * 2, task, lrs=[0.03, 0.01], total_steps=12, seed=3)
        stack.run(1)
        first = Training(compiled, task, lr=0.03, total_steps=12, seed=3)
        first.run(1)
        assert stack.losses()[0] == pytest.approx(first.loss, rel=1e-5)


def test_a_training_in_pieces_is_that_at_once() -> None:
    task = small("fashion14", net="mlp-1-8")
    found = []
    for stops in ((12,), (5, 6, 12)):
        training = Training(compile_rule("adam"), task, lr=0.01, total_steps=12, seed=1)
        for stop in stops:
            training.run(stop)
        found.append(training.measure(task.val))
    assert found[0] == found[1]


def test_which_tasks_have_images() -> None:
    mirrored = {"fashion": True, "fashion14": True, "digits": False, "patch10": True}
    for name in ("chirps", "tabular", "autoencoder", "charmlp", *mirrored):
        task = load(name)
        assert task.has_pictures == (name in mirrored)
        assert task.mirrors == mirrored.get(name, False)
        if name not in mirrored:
            with pytest.raises(UsageError, match=f"task {name} cannot be augmented: it has no images"):
                task.with_options(augment=True)
    assert "cifar10" in TASKS  # its data do not come with the package; test_task_cifar10.py has some
    x, y = np.random.RandomState(0).rand(40, 6, 6), np.arange(40) % 2
    assert not Task.from_arrays(x, y).mirrors
    assert Task.from_arrays(x, y, mirrors=True).with_options(augment=True).augment


TINY = ["--train-steps", "6", "--width", "4"]
CELLS = ["--sizes", "m", "--horizons", "1", "--seeds", "3", "--tuning", "1", "--workers", "1"]


def test_a_proof_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "adam", "--against", "sgd", *TINY, *CELLS, "--augment"]
    page = str(tmp_path / "page.html")
    assert main([*words, "--tasks", "digits,tabular", "--html", page, "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "the images that trained were augmented on digits\n" in out
    assert "note: --augment does nothing on tabular: only images with one class each can be moved" in err
    assert "images augmented on digits</p>" in Path(page).read_text()
    found = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert {name: task["augment"] for name, task in found["protocol"]["tasks"].items()} == {
        "digits": True,
        "tabular": False,
    }
    want = load("digits").with_options(width=4, train_steps=6, augment=True)
    cell = found["contenders"]["sgd"]["cells"]["digits m x1"]
    training = Training if _C.child_kernels() is None else NativeTraining
    for seed, score in zip(found["protocol"]["seeds"], cell["tests"], strict=True):
        mine = training(compile_rule("sgd"), want, lr=cell["lr"], total_steps=6, seed=seed, decay="linear_cosine")
        mine.run(6)
        assert score == mine.measure(want.test).accuracy
    # trainings of the other kind do not mix with these
    assert main([*words[:-1], "--tasks", "digits,tabular", "--out", str(tmp_path / "out")]) == 2
    assert "has trainings with digits m x1 augment True, not none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["prove", "adam", "--against", "sgd", "--tasks", "tabular,chirps", *CELLS],
        ["evaluate", "adam", "--tasks", "tabular"],
        ["train", "adam", "--task", "tabular"],
        ["simplify", "adam", "--tasks", "tabular"],
    ],
)
def test_tasks_without_images_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--augment"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--augment does nothing on tabular" in err
    assert "leave it out" in err


def test_other_commands_take_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sweep-steps", "2", *TINY, "--augment", "--json"]
    assert main(["train", "sgd", "--task", "digits", "--lr", "0.1", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["augment"] is True
    assert main(["train", "sgd", "--task", "digits", "--lr", "0.1", *[w for w in words if w != "--augment"]]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["augment"] is False
    assert plain["curve"]["loss"] != found["curve"]["loss"]
    kept = str(tmp_path / "kept.json")
    assert main(["evaluate", "sgd", "--tasks", "digits", "--seeds", "1", *words, "--out", kept]) == 0
    capsys.readouterr()
    assert main(["evaluate", "sgd", "--tasks", "digits", "--seeds", "1", *words[:-2], "--out", kept]) == 2
    assert "trainings with digits augment True, not none" in capsys.readouterr().err
