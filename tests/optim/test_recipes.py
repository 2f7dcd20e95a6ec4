"""The recipes in examples/recipes train at a small size, resume to the bit, and name wrong input."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import lzma
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"
DATA = ROOT / "python" / "nos_search" / "data"
NAMES = ("cifar10.py", "imagenet.py", "translation.py", "gpt.py")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks on a busy machine wait for threads longer than they compute."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str) -> ModuleType:
    """Imports a recipe, as a copy without a package around it. Skips where what it needs is missing."""
    if name == "imagenet.py":
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed")
        import_torchvision()
    elif name == "translation.py":
        pytest.importorskip("sentencepiece")
        pytest.importorskip("sacrebleu")
    spec = importlib.util.spec_from_file_location(f"recipe_{name.removesuffix('.py')}", RECIPES / name)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError:
        # The registry's wheel is made for torch's CUDA builds, and beside a CPU build its operators are missing. No
        # recipe uses them, but the import wants these two names.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


# -- data at a small size ---------------------------------------------------------------------------------------------


def cifar10(folder: Path) -> list[str]:
    """Ten images a batch, whose brightness tells the class."""
    draws = np.random.default_rng(0)
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        classes = draws.permutation(10)
        data = (classes[:, None] * 20 + draws.integers(0, 60, (10, 3072))).astype(np.uint8)
        (place / name).write_bytes(pickle.dumps({b"data": data, b"labels": classes.tolist()}, protocol=2))
    return [str(folder), "--net", "wrn-10-1", "--batch-size", "25"]


def imagenet(folder: Path) -> list[str]:
    """Six JPEGs of each of two classes, one light, one dark."""
    image = pytest.importorskip("PIL.Image")
    draws = np.random.default_rng(0)
    for part, kind, i in itertools.product(("train", "val"), ("dark", "light"), range(6)):
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 100, (40, 40, 3)) + (150 if kind == "light" else 0)
        image.fromarray(pixels.astype(np.uint8)).save(folder / part / kind / f"{i}.jpg")
    return [str(folder), "--net", "squeezenet1_1", "--size", "32", "--workers", "0", "--batch-size", "6"]


def translation(folder: Path) -> list[str]:
    """Short verses of the texts that this package has."""
    text = lzma.decompress((DATA / "kjv_rv1909_pairs.txt.xz").read_bytes()).decode()
    pairs = [line.split("\t") for line in text.split("\n")[:122]]
    paths = []
    for part, some in (("train", pairs[2:]), ("valid", pairs[:2])):
        for i, language in enumerate(("en", "es")):
            paths.append(str(folder / f"{part}.{language}"))
            Path(paths[-1]).write_text("\n".join(pair[i] for pair in some) + "\n", encoding="utf-8")
    size = ["--depth", "1", "--width", "16", "--heads", "2", "--vocabulary", "150", "--batch-size", "1000"]
    return [*paths, *size, "--longest", "60", "--beam", "2"]


def gpt(folder: Path) -> list[str]:
    text = lzma.decompress((DATA / "kjv_text.txt.xz").read_bytes())[:4000]
    (folder / "text.txt").write_bytes(text)
    size = ["--depth", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch-size", "8"]
    return [str(folder / "text.txt"), *size, "--epoch-steps", "6"]


MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "cifar10.py": cifar10, "imagenet.py": imagenet, "translation.py": translation, "gpt.py": gpt
}  # fmt: skip


def figures(result: dict[str, Any]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in result["history"]]


# -- trainings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "metric"),
    [
        ("cifar10.py", ["--rule", "powersign", "--lr", "0.1", "--set", "sign_decay=cosine"], "accuracy"),
        ("imagenet.py", ["--rule", "adamw", "--lr", "1e-3", "--decay", "cosine"], "accuracy_of_five"),
        ("translation.py", ["--rule", "adamw", "--lr", "0.01", "--clip-norm", "1"], "bleu"),
        (
            "gpt.py",
            ["--rule", "g * exp(sign(g) * sign(drop(m, 0.1)))", "--lr", "0.2", "--warmup", "2"],
            "bits_per_byte",
        ),
        ("gpt.py", ["--rule", "adamw", "--lr", "0.01", "--matrices", "muon", "--matrices-lr", "0.02"], "bits_per_byte"),
        ("gpt.py", ["--rule", "schedule_free_adamw", "--lr", "0.01", "--decay", "none"], "validation_loss"),
        (
            "gpt.py",
            ["--rule", "lion", "--lr", "0.003", "--dtype", "bf16", "--dropout", "0.1", "--decay", "linear"],
            "loss",
        ),
    ],
)
def test_resumed_is_unbroken(
    name: str, options: list[str], metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(name)
    arguments = [*MAKERS[name](tmp_path), *options, "--device", "cpu", "--epochs", "3"]
    whole = recipe.main([*arguments, "--out", str(tmp_path / "whole")])
    losses = [epoch["loss"] for epoch in figures(whole)]
    assert losses[-1] < losses[0]
    assert all(math.isfinite(epoch[metric]) for epoch in figures(whole))

    with monkeypatch.context() as patch:
        end_of_epoch = recipe.Run.end_of_epoch

        def killed(run: Any, *given: Any, **named: Any) -> None:
            end_of_epoch(run, *given, **named)
            raise KeyboardInterrupt

        patch.setattr(recipe.Run, "end_of_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            recipe.main([*arguments, "--out", str(tmp_path / "broken")])
    torch.manual_seed(99)  # what a new process begins with is no part of it
    resumed = recipe.main([*arguments, "--out", str(tmp_path / "broken"), "--resume"])
    assert figures(resumed) == figures(whole)
    assert json.loads((tmp_path / "broken" / "result.json").read_text()) == resumed
    states = [torch.load(tmp_path / out / "checkpoint.pt", weights_only=True)["model"] for out in ("whole", "broken")]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    arguments = [
        *gpt(tmp_path),
        "--rule",
        "adamw",
        "--lr",
        "0.01",
        "--device",
        "cpu",
        "--epochs",
        "2",
        "--clip-norm",
        "1",
    ]
    alone = load("gpt.py").main([*arguments, "--out", str(tmp_path / "alone")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(RECIPES / "gpt.py"), *arguments, "--out", str(tmp_path / "both")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    both = json.loads((tmp_path / "both" / "result.json").read_text())
    assert both["processes"] == 2
    for one, two in zip(figures(alone), figures(both), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path) -> None:
    arguments = [*gpt(tmp_path), "--rule", "sgd", "--lr", "1e30", "--device", "cpu", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"loss is (nan|inf) in epoch 1: --lr 1e\+30 is too high"):
        load("gpt.py").main(arguments)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["diverged"] is True
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("gpt.py", ["--rule", "adamv"], r"--rule: .*adamv"),
        ("gpt.py", ["--rule", "g * nonsense(m)"], r"--rule: .*nonsense"),
        ("gpt.py", ["--rule", "@missing.txt"], r"--rule: .*missing\.txt"),
        ("gpt.py", ["--rule", "g", "--weight-decay", "0.1"], r"--weight-decay 0\.1: rule .* has none"),
        ("gpt.py", ["--set", "gamma=1"], r"--set gamma=1: rule 'powersign' has the hyperparameters beta, base"),
        ("gpt.py", ["--set", "beta=high"], r"--set beta=high: pass NAME=VALUE"),
        ("gpt.py", ["--set", "beta=2"], r"--rule powersign --lr 0\.1, with what --set and others say: .*beta"),
        ("gpt.py", ["--rule", "muon"], r"--rule muon .*: parameter .* orthogonalizes matrices"),
        ("gpt.py", ["--warmup", "60"], r"--warmup 60: the training has 60 steps"),
        ("gpt.py", ["--batch-size", "0"], r"--batch-size 0"),
        ("gpt.py", ["--matrices", "muon"], r"pass --matrices-lr"),
        ("gpt.py", ["--context", "1000"], r"--context 1000; take a longer text"),
        ("gpt.py", ["--spm", "missing.model"], r"--spm missing\.model"),
        ("gpt.py", ["--width", "17"], r"--width 17 is no multiple"),
        ("cifar10.py", ["--net", "wrn-11-1"], r"--net wrn-11-1: pass wrn-DEPTH-WIDTH"),
        ("cifar10.py", ["--hold-out", "40"], r"--hold-out 40: 50 training images are too few"),
        ("imagenet.py", ["--net", "resnet"], r"--net resnet: torchvision has .*resnet50"),
        ("imagenet.py", ["--batch-size", "100"], r"--batch-size 100: there are 12 images"),
        ("translation.py", ["--batch-size", "50"], r"--batch-size 50: it is counted in tokens"),
        ("translation.py", ["--vocabulary", "10"], r"--vocabulary 10: .*; pass another number"),
        ("translation.py", ["--spm", "missing.model"], r"--spm missing\.model: there is no such file"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(name: str, options: list[str], says: str, tmp_path: Path) -> None:
    arguments = [*MAKERS[name](tmp_path), "--lr", "0.1", "--device", "cpu", "--out", str(tmp_path / "out"), *options]
    if options[0] == "--spm":
        pytest.importorskip("sentencepiece")
    with pytest.raises(SystemExit, match=r"(?s)" + says):
        load(name).main(arguments)


@pytest.mark.parametrize(
    ("name", "breaks", "says"),
    [
        ("cifar10.py", lambda at: (at / "cifar-10-batches-py" / "data_batch_3").unlink(), r"no .*data_batch_3; get cifar"),
        ("cifar10.py", lambda at: (at / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Path("/"))),
         r"test_batch is no batch of CIFAR-10: pathlib.* does not belong"),
        ("imagenet.py", lambda at: (at / "val").rename(at / "test"), r"val.*it must have train/CLASS"),
        ("imagenet.py", lambda at: (at / "val" / "dark").rename(at / "val" / "black"), r"have different classes"),
        ("translation.py", lambda at: (at / "train.es").write_text("Una.\n"), r"120 lines and .*train\.es 1"),
        ("translation.py", lambda at: (at / "valid.en").unlink(), r"valid\.en: No such file"),
        ("gpt.py", lambda at: (at / "text.txt").unlink(), r"TEXT .*text\.txt: No such file"),
    ],
)  # fmt: skip
def test_wrong_data_are_named(name: str, breaks: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    arguments = [*MAKERS[name](tmp_path), "--lr", "0.1", "--device", "cpu", "--out", str(tmp_path / "out")]
    breaks(tmp_path)
    with pytest.raises(SystemExit, match=says):
        load(name).main(arguments)


def test_a_checkpoint_is_neither_overwritten_nor_mixed(tmp_path: Path) -> None:
    recipe = load("gpt.py")
    arguments = [*gpt(tmp_path), "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "out")]
    recipe.main([*arguments, "--lr", "0.1"])
    with pytest.raises(SystemExit, match="has a checkpoint; go on from it with --resume"):
        recipe.main([*arguments, "--lr", "0.1"])
    with pytest.raises(SystemExit, match=r"was written with lr 0\.1, and this is 0\.2"):
        recipe.main([*arguments, "--lr", "0.2", "--resume"])


def test_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load("gpt.py")
    arguments = [*gpt(tmp_path), "--lr", "0.1", "--device", "cpu", "--epochs", "1", "--log", str(tmp_path / "log")]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(SystemExit, match=r"--log .* needs TensorBoard: pip install tensorboard"):
            recipe.main([*arguments, "--out", str(tmp_path / "without")])
    pytest.importorskip("tensorboard")
    recipe.main([*arguments, "--out", str(tmp_path / "out")])
    assert list((tmp_path / "log").glob("events*"))


# -- parts of them ----------------------------------------------------------------------------------------------------


def test_the_wide_resnet_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        net = load("cifar10.py").wide_resnet("wrn-28-10", 0.0)
    assert sum(p.numel() for p in net.parameters()) == 36_479_194  # Zagoruyko and Komodakis say 36.5 million


def test_augmented_images_are_crops() -> None:
    torch.manual_seed(0)
    images = torch.randint(1, 256, (40, 3, 32, 32), dtype=torch.uint8)
    places = set()
    for image, seen in zip(images, load("cifar10.py").augmented(images), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (4, 4), (4, 4)))
        crops = {
            (y, x, mirrored): padded[:, y : y + 32, x : x + 32][:, :, :: -1 if mirrored else 1]
            for y, x, mirrored in itertools.product(range(9), range(9), (False, True))
        }
        found = [place for place, crop in crops.items() if np.array_equal(crop, seen.numpy())]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 20
    assert {mirrored for _, _, mirrored in places} == {False, True}


def test_the_schedule_rises_and_then_decays() -> None:
    recipe = load("gpt.py")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = recipe.make_schedule(optimizer, SimpleNamespace(decay="linear_cosine", warmup=4), 14)
    seen = []
    for _ in range(14):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    after = [(1 - s / 10) * 0.5 * (1 + math.cos(math.pi * s / 10)) + 0.001 for s in range(10)]
    assert seen == pytest.approx([0.5, 1.0, 1.5, 2.0, *[2.0 * factor for factor in after]])


def test_vectors_have_no_weight_decay() -> None:
    recipe = load("gpt.py")
    options = SimpleNamespace(rule="adamw", lr=0.1, weight_decay=0.3, hyper=["beta2=0.95"], clip_norm=None, seed=0)
    optimizer = recipe.make_optimizer(recipe.GPT(256, 8, 16, 1, 2, 0.0), options, 10)
    shapes = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in optimizer.param_groups}
    assert shapes == {0.3: {2}, 0.0: {1}}
    assert {group["beta2"] for group in optimizer.param_groups} == {0.95}


def test_buckets_hold_every_text_once() -> None:
    buckets = load("translation.py").buckets
    lengths = torch.randint(1, 60, (300,), generator=torch.Generator().manual_seed(0))
    found = [buckets(lengths, 200, 50, torch.Generator().manual_seed(seed)) for seed in range(3)]
    found.append(buckets(lengths, 200, 50))
    for batches in found:
        assert sorted(i for batch in batches for i in batch) == (lengths <= 50).nonzero().flatten().tolist()
        assert all(len(batch) * max(lengths[i] for i in batch) <= 200 for batch in batches)
    assert len({len(batches) for batches in found}) == 1
    assert found[0] != found[1]


class Table:
    """A network without weights: what follows a beginning is drawn with the beginning as the seed."""

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        return source.float()

    def decode(self, source: torch.Tensor, memory: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        scores = []
        for text, said in zip(source.tolist(), tokens.tolist(), strict=True):
            seed = int("".join(map(str, [*text, *said])))
            scores.append(2 * torch.randn(6, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(scores).unsqueeze(1)


def log_probability(text: int, words: list[int]) -> list[float]:
    """The logarithm of the probability of each token after `words`, of those that may follow."""
    said = torch.tensor([[2, *words]])
    return Table().decode(torch.tensor([[text]]), said, said)[0, 0].log_softmax(0).tolist()


def test_beam_search() -> None:
    beam_search = load("translation.py").beam_search
    texts, longest, end, words = [[5], [6], [7], [8]], 3, 3, (1, 4, 5)  # 0 and 2 are never said
    wide = beam_search(Table(), torch.tensor(texts), 64, longest)
    greedy = beam_search(Table(), torch.tensor(texts), 1, longest)
    for (text,), best, quick in zip(texts, wide, greedy, strict=True):
        scores = {}
        for length in range(1, longest + 1):
            for said in itertools.product(words, repeat=length - 1):
                before = sum(log_probability(text, list(said[:i]))[said[i]] for i in range(length - 1))
                for last in (end, *words) if length == longest else (end,):
                    whole = said if last == end else (*said, last)
                    total = before + log_probability(text, list(said))[last]
                    scores[whole, last == end] = total / ((5 + length) / 6) ** 0.6
        assert tuple(best) == max(scores, key=lambda key: scores[key])[0]

        step: list[int] = []
        while len(step) < longest:
            chances = log_probability(text, step)
            token = max((end, *words), key=lambda t: chances[t])
            if token == end:
                break
            step.append(token)
        assert quick == step


# -- all of them ------------------------------------------------------------------------------------------------------


def test_recipes_share_their_lines() -> None:
    """A recipe is one file, for people to copy; what all have in common is the same text in all."""
    shared = {(RECIPES / name).read_text(encoding="utf-8").partition("# -- the same lines")[2] for name in NAMES}
    assert len(shared) == 1
    assert len(shared.pop()) > 5000


def test_every_recipe_is_tested_and_told_of() -> None:
    assert {path.name for path in RECIPES.glob("*.py")} == set(NAMES) == set(MAKERS)
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert all(f"examples/recipes/{name}" in text for name in NAMES)
