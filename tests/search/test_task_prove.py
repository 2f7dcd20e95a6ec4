"""The tasks that no search is rewarded on: what their data are, that these are the same everywhere, and that a child
learns from them."""

from __future__ import annotations

import hashlib
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nos_search.errors import SearchError, UsageError
from nos_search.rules import compile_rule
from nos_search.task import Task, autoencoder, chirps, fashion, friedman, load, translate
from nos_search.train.child import ScoringProtocol, score, train

NAMES = ["chirps", "spanish", "spanishlm", "tabular", "friedman", "autoencoder"]
DIGESTS = {
    "chirps": "fb4b0ec977413117",
    "spanish": "f5876da4aab0f214",
    "spanishlm": "a25f04b8b5c93869",
    "tabular": "131b0c1dffa83415",
    "friedman": "e11dee78919904a2",
    "autoencoder": "8d8783d00ec3c9c5",
}  # of what is in whole numbers: classes, tokens, levels, and 64ths of a signal


def _digest(task: Task) -> str:
    found = hashlib.sha256()
    for split in (task.train, task.val, task.test):
        found.update(split.y.numpy().astype("<i8").tobytes())
        if task.name in ("chirps", "spanish", "spanishlm"):
            found.update((64 * split.x).round().numpy().astype("<i8").tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_the_same_everywhere(name: str) -> None:
    assert _digest(load(name)) == DIGESTS[name]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("chirps", 0.4),
        ("spanish", 0.27),
        ("spanishlm", 0.36),
        ("tabular", 0.25),
        ("friedman", 0.4),
        ("autoencoder", 0.45),
    ],
)
def test_a_network_learns_and_a_rule_that_stands_still_does_not(name: str, least: float) -> None:
    """Adam in the task's own budget, at one rate; what does not move is no better than a guess by frequency."""
    task = load(name)
    protocol = ScoringProtocol(engine="auto", learning_rates=(0.01,), sweep="full")
    assert score(compile_rule("adam"), task, protocol, seed=1, test=True).test > least
    short = task.with_options(train_steps=5)
    assert train(compile_rule("0 * g"), short, lr=0.01, seed=1, test=True).test < 0.02


def test_waves_have_the_frequencies_of_their_names() -> None:
    """By counting how often they change their sign in each half of a signal, and by how large they are there."""
    d = chirps.Draws(*(np.full((1, 1), value) for value in (8.0, 0.1234, 0.5, 1.0)))
    t = np.arange(6400) / 6400
    made = {name: wave(d, t)[0] for name, wave in chirps.WAVES.items()}

    def crossings(x: np.ndarray) -> list[int]:
        return [int((np.diff(np.sign(half)) != 0).sum()) for half in np.split(x, 2)]

    assert all(np.abs(x).max() == pytest.approx(1, abs=0.15) for x in made.values())
    for name in ("tone", "square", "triangle"):
        assert crossings(made[name]) == [8, 8]  # two in a cycle
    assert crossings(made["rising"]) == [6, 10]
    assert crossings(made["falling"]) == crossings(made["rising"])[::-1]
    assert set(np.sign(made["square"])) == {-1.0, 1.0}
    assert np.abs(np.diff(made["sawtooth"])).max() == pytest.approx(2, abs=0.01)  # it jumps
    assert np.abs(np.diff(made["triangle"])).max() < 0.01
    middle = np.abs(t - 0.5) < 0.15
    assert np.abs(made["burst"][~middle]).max() < 0.35
    assert (made["struck"][t < 0.3] == 0).all()
    assert np.abs(made["struck"][t > 0.9]).max() < 0.1


def test_examples_of_friedman_are_those_of_its_function() -> None:
    """scikit-learn's own function of the numbers, with noise of the deviation 1, falls into the eighths."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(n_samples=200, n_features=10, noise=0.0, random_state=0)
    np.testing.assert_allclose(friedman.function(x), y, rtol=1e-12)
    task = load("friedman")
    numbers = task.train.x[:50_000].reshape(-1, 10).double().numpy() / np.sqrt(12.0) + 0.5
    np.testing.assert_allclose(numbers * 1024, np.round(numbers * 1024), atol=1e-3)
    value = friedman.function(numbers)
    classes = task.train.y[:50_000].numpy()
    assert np.bincount(classes).tolist() == pytest.approx([6250] * 8, rel=0.05)
    # between two classes lies a limit, about which values are blurred by the noise
    middle = [(value[classes == k].mean() + value[classes == k + 1].mean()) / 2 for k in range(7)]
    assert middle == sorted(middle)
    blur = [np.mean(np.abs(value[classes == k] - value[classes == k].mean())) for k in range(1, 7)]
    assert 0.5 < min(blur) < max(blur) < 1.5


def test_signals_differ_in_all_that_is_drawn() -> None:
    """And no class has a mean of its own."""
    task = load("chirps")
    x = task.test.x[:, 0, 0]
    assert torch.equal(x * 64, (x * 64).round())
    assert 0.5 < float(x.std()) < 1.0
    for number in range(10):
        mine = x[task.test.y == number]
        assert 700 < len(mine) < 940
        assert float(mine.mean(0).abs().max()) < 0.2  # phases are drawn


def test_spanish_is_the_other_side_of_the_pairs() -> None:
    """Accents and marks included: the first line back from its numbers, and every split from its own part."""
    pairs = [line.split("\t") for line in lzma.decompress(translate.PAIRS.read_bytes()).decode().splitlines()]
    text = "\n".join(pair[1] for pair in pairs)
    assert text.startswith("EN el principio crió Dios los cielos y la tierra.\n")
    order = [symbol for symbol, _ in sorted(Counter(text).items(), key=lambda each: (-each[1], each[0]))]
    assert len(order) == 80
    assert set("áéíóúñü¿¡") < set(order)

    model = load("spanishlm")
    assert model.classes == 80
    assert "".join(order[k] for k in model.train.x[:3].flatten().tolist()) == text[:192]
    assert torch.equal(model.train.x.flatten()[1:], model.train.y.flatten()[:-1])
    assert [len(split) for split in (model.train, model.val, model.test)] == [6121, 340, 340]
    assert "".join(order[k] for k in model.val.x[0].tolist()) == text[64 * 6121 : 64 * 6122]
    assert model.budget.train_steps < model.epoch

    task = load("spanish")
    held = len(text) // 20
    parts = (text[: -2 * held], text[-2 * held : -held], text[-held:])
    for split, part in zip((task.train, task.val, task.test), parts, strict=True):
        start = 0
        for k in range(200):  # in order of the text
            window = "".join(order[number] for number in [*split.x[k].tolist(), int(split.y[k])])
            start = part.index(window, start) + 1
    assert 10 * task.budget.train_steps < task.epoch


def test_spanish_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("one\tñandú é\n" * 2000, encoding="utf-8")
    assert load("spanish", data_dir=tmp_path).classes == 8
    assert load("spanishlm", data_dir=tmp_path).classes == 8
    (tmp_path / "pairs.tsv").write_text("one\tuno\n" * 100)
    with pytest.raises(UsageError, match="the text has 399 characters; spanishlm wants 3840 or more"):
        load("spanishlm", data_dir=tmp_path)
    (tmp_path / "pairs.tsv").unlink()
    with pytest.raises(UsageError, match=r"pairs.tsv cannot be read as UTF-8 text .* spanish wants that file"):
        load("spanish", data_dir=tmp_path)


def test_tables_lack_one_measure_and_ask_for_its_quarter() -> None:
    """Against the table itself, row by row, in the order of the split."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer().data
    table = table[np.random.RandomState(20170806).permutation(569)]
    parts = {"train": table[:300], "val": table[300:369], "test": table[369:]}
    means, spreads = parts["train"].mean(0), parts["train"].std(0)
    task = load("tabular")
    for name, rows in parts.items():
        split = getattr(task, name)
        assert split.x.shape == (30 * len(rows), 1, 1, 60)
        for k in (0, 7, 31, 30 * len(rows) - 1):
            row, gap = rows[k // 30], k % 30
            seen = (row - means) / spreads
            seen[gap] = 0
            np.testing.assert_allclose(split.x[k, 0, 0, :30].numpy(), seen, rtol=1e-6)
            assert split.x[k, 0, 0, 30:].nonzero().flatten().tolist() == [gap]
            smaller = (np.sort(parts["train"][:, gap]) <= row[gap]).mean()  # a share of the rows that train
            assert abs(float(split.y[k]) + 0.5 - 4 * smaller) <= 0.55
    shares = task.train.y.bincount() / len(task.train)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_without_the_package_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SearchError, match="task 'tabular' needs scikit-learn; install it with"):
        load("tabular")


def test_levels_of_pixels() -> None:
    """Black alone is the lowest; a seventh of the grey scale, rounded up, makes each of the others. One image, in whose
    row every cell of 4x4 pixels has another sum."""
    sums = [0, 1, 582, 583, 584, 1165, 1166, 3497, 3498, 4080]  # 4080 is white, a seventh of it 582.86
    cells = np.array([[total // 16 + (k < total % 16) for k in range(16)] for total in sums], np.uint8)
    image = cells.reshape(len(sums), 4, 4).transpose(1, 0, 2).reshape(1, 4, 4 * len(sums))
    assert autoencoder.levels(image).tolist() == [[[0, 1, 1, 2, 2, 2, 3, 6, 7, 7]]]


def test_an_autoencoder_is_asked_for_what_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, images = load("autoencoder"), load("fashion")
    assert task.train.x.shape == (5000, 1, 7, 7)
    assert task.test.y.shape == (1000, 49)
    seen = task.test.x.flatten(1)
    for level in range(8):
        assert len(seen[task.test.y == level].unique()) == 1
    black = images.test.x.reshape(1000, 7, 4, 7, 4).amax((2, 4)).flatten(1) == images.test.x.min()
    assert torch.equal(task.test.y == 0, black)
    with pytest.raises(UsageError, match="--net 'convnet' is not known; choose one of: autoencoder"):
        task.with_options(net="convnet")
    odd = {name: np.zeros((3, 5, 6), np.uint8) for name in ("train_x", "val_x", "test_x")}
    monkeypatch.setattr(autoencoder, "arrays", lambda folder: odd)
    with pytest.raises(UsageError, match="whose sides are multiples of 4 pixels"):
        load("autoencoder", data_dir=tmp_path)
    assert fashion.arrays(None)["val_y"].shape == (1000,)
