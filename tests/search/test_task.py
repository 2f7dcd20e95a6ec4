"""The tasks: splits, balance, standardisation, and readers of user folders."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nos_search.errors import SearchError, UsageError
from nos_search.rules import compile_rule
from nos_search.task import Task, charlm, fashion, load, mnist1d, patch10, teacher, translate
from nos_search.task._make_bible_subsets import read_module
from nos_search.task.base import IGNORED, Split
from nos_search.task.fashion import SUBSET, read_idx
from nos_search.task.score import Measured
from nos_search.train.child import ScoringProtocol, score
from nos_search.train.seeds import derive_seed
from nos_search.train.training import Batches

CARRIED = [
    "charmlp",
    "teacher",
    "mnist1d",
    "digits",
    "fashion",
    "fashion14",
    "patch10",
    "charlm",
    "translate",
    "chirps",
    "spanish",
    "spanishlm",
    "tabular",
    "friedman",
    "autoencoder",
]  # without a data folder


def load_or_skip(name: str) -> Task:
    if name == "patch10":
        pytest.importorskip("skimage")
    if name == "mnist1d":
        pytest.importorskip("mnist1d")
    return load(name)


@pytest.mark.parametrize("name", CARRIED)
def test_every_task(name: str) -> None:
    task = load_or_skip(name)
    assert task.name == name
    for split in (task.train, task.val, task.test):
        assert split.x.is_contiguous()
        asked = split.y[split.y != IGNORED]
        assert asked.min() >= 0
        assert asked.max() < task.classes
    # no example of one split is in another
    if name not in ("charmlp", "charlm", "translate", "spanish", "spanishlm"):
        seen = [{x.numpy().tobytes() for x in split.x} for split in (task.train, task.val, task.test)]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
    again = load(name)
    assert torch.equal(task.train.x, again.train.x)
    assert torch.equal(task.train.y, again.train.y)
    weights = task.model().init(torch.Generator().manual_seed(1))
    logits = task.model().logits(weights, task.train.x[:3], training=True)
    assert logits.shape == (*task.train.y[:3].shape, task.classes)


@pytest.mark.parametrize("name", ["mnist1d", "digits", "fashion", "fashion14", "patch10", "autoencoder"])
def test_image_tasks_are_standardised_and_know_every_class(name: str) -> None:
    task = load_or_skip(name)
    assert abs(float(task.train.x.mean())) < 1e-4
    assert abs(float(task.train.x.std()) - 1) < 1e-4
    for split in (task.train, task.val, task.test):
        counts = split.y.flatten().bincount(minlength=task.classes)
        assert counts.min() > 0
        assert len(counts) == task.classes


def test_digits_split_is_fixed() -> None:
    task = load("digits")
    assert [len(split) for split in (task.train, task.val, task.test)] == [1100, 297, 400]
    labels = torch.cat([task.train.y, task.val.y, task.test.y]).to(torch.uint8)
    assert hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16] == "97e3c8f37fa9b781"


def test_fashion_subset_is_balanced_and_licensed() -> None:
    task = load("fashion")
    for split, count in ((task.train, 500), (task.val, 100), (task.test, 100)):
        assert split.y.bincount().tolist() == [count] * 10
        assert split.x.shape[1:] == (1, 28, 28)
    assert SUBSET.stat().st_size < 3_000_000
    assert "Copyright (c) 2017 Zalando SE" in (SUBSET.parent / "fashion_mnist.LICENSE").read_text()


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.GzipFile(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(head + array.tobytes())


def test_fashion_from_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prefix, count, suffix in (("train", 5100, ".gz"), ("t10k", 30, "")):
        write_idx(
            tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    task = load("fashion", data_dir=tmp_path)
    assert [len(split) for split in (task.train, task.val, task.test)] == [100, 5000, 30]
    assert task.val.y[0] == 0  # the 101st of the file
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match=r"has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"):
        load("fashion", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.full(5050, 250, np.uint8), "train labels go up to 250; it is not Fashion-MNIST"),
        ("t10k-labels-idx1-ubyte", np.full(20, 10, np.uint8), "t10k labels go up to 10"),
        ("t10k-labels-idx1-ubyte", np.zeros(19, np.uint8), "want 1 or more images, and as many labels"),
        ("t10k-images-idx3-ubyte", np.zeros((20, 14, 14), np.uint8), r"images of \(28, 28\) to train, of \(14, 14\)"),
        ("train-images-idx3-ubyte", np.zeros(5050, np.uint8), r"shapes \(5050,\) and \(5050,\)"),
        ("train-images-idx3-ubyte", np.zeros((5000, 28, 28), np.uint8), "want 5001 or more images"),
    ],
)
def test_files_that_are_not_fashion_mnist(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    for prefix, count in (("train", 5050), ("t10k", 20)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.ones((count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    write_idx(tmp_path / name, array)
    with pytest.raises(UsageError, match=message):
        load("fashion", data_dir=tmp_path)


def test_broken_idx_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good"
    write_idx(good, np.arange(12, dtype=np.uint8).reshape(3, 4, 1))
    assert read_idx(good).tolist() == np.arange(12).reshape(3, 4, 1).tolist()
    for name, raw in {
        "short": good.read_bytes()[:-1],
        "long": good.read_bytes() + b"x",
        "magic": b"\0\0\x0d\x03" + good.read_bytes()[4:],
        "head": good.read_bytes()[:6],
        "empty": b"",
        "plain.gz": good.read_bytes(),
        "cut.gz": gzip.compress(good.read_bytes())[:20],
    }.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UsageError, match=f"--data-dir.*{name}"):
            read_idx(tmp_path / name)


def test_wrong_tasks_and_options() -> None:
    with pytest.raises(
        UsageError, match="--task 'cifar' is not known; choose one of: charmlp, teacher, mnist1d, digits, fashion"
    ):
        load("cifar")
    with pytest.raises(UsageError, match="--data-dir /no/such/folder is not a folder"):
        load("fashion", data_dir=Path("/no/such/folder"))
    task = load("digits")
    with pytest.raises(UsageError, match="--width 0 is below 1"):
        task.with_options(width=0)
    changed = task.with_options(width=3, sweep_steps=2, train_steps=4)
    assert (changed.width, changed.budget.sweep_steps, changed.budget.train_steps) == (3, 2, 4)
    assert task.with_options() == task
    assert str(task.with_options(net="mlp-3").spec) == "mlp-3-128"
    assert str(task.with_options(net="mlp", width=7).spec) == "mlp-2-7"
    for net, message in (
        ("gru", "--net 'gru' is not known; choose one of: convnet, wrn, mlp"),
        ("mlp-2-x", r"--net 'mlp-2-x' is not NAME\[-DEPTH\[-WIDTH\]\]"),
        ("mlp-0", "is not NAME"),
        ("mlp-1-2-3", "is not NAME"),
        ("convnet-4", "--net convnet-4-32: 4 halvings leave nothing of 8x8 pixels"),
        ("wrn-12", r"--net wrn-12-2: the depth of a Wide ResNet is 6n \+ 4"),
    ):
        with pytest.raises(UsageError, match=message):
            task.with_options(net=net)
    with pytest.raises(UsageError, match="choose one of: gru, transformer"):
        load("charlm").with_options(net="convnet")
    with pytest.raises(
        UsageError, match="--net transformer-1-40: the width must be even, and a multiple of 32 above 32"
    ):
        load("charlm").with_options(net="transformer-1-40")


def test_wrong_splits() -> None:
    with pytest.raises(ValueError, match="split: want x"):
        Split(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got x \(2, 1, 3, 3\) torch.float32, y \(2, 8\)"):
        Split(torch.zeros(2, 1, 3, 3), torch.zeros(2, 8, dtype=torch.int64))  # an image of nine numbers
    with pytest.raises(ValueError, match="split: 2 examples and 1 labels"):
        Split(torch.zeros(2, 1, 3, 3), torch.zeros(1, dtype=torch.int64))


def test_part_of_the_data() -> None:
    task = load("digits")
    half = task.with_data(0.5)
    assert torch.equal(half.train.x, task.train.x[:550])
    assert half.epoch == 5
    assert half.val is task.val
    assert len(task.with_data(0.001).train) == 100  # one batch
    with pytest.raises(UsageError, match=r"data fraction 2 is outside \(0, 1\]"):
        task.with_data(2)


def test_fashion_full_needs_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="task 'fashion-full' needs --data-dir with the four Fashion-MNIST files"):
        load("fashion-full")
    for prefix, count in (("train", 5100), ("t10k", 30)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.ones((count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path)
    assert len(load("fashion-full").train) == 100


def test_one_folder_for_each_task(tmp_path: Path) -> None:
    (tmp_path / "charlm").mkdir()
    (tmp_path / "charlm" / "text.txt").write_text("abcd" * 2000)
    assert load("charlm", data_dir=tmp_path).classes == 4
    assert len(load("fashion", data_dir=tmp_path).train) == 5000  # not in the folder: what the package carries
    assert load("charlm", data_dir=tmp_path / "charlm").classes == 4


def test_characters_are_windows_of_the_text() -> None:
    task = load("charlm")
    text = lzma.decompress(charlm.TEXT.read_bytes()).decode()
    order = [symbol for symbol, _ in Counter(text).most_common()]
    line = "".join(order[k] for k in task.train.x[:2].flatten().tolist())
    assert line == text[:128]
    assert torch.equal(task.train.x.flatten()[1:], task.train.y.flatten()[:-1])
    assert [len(split) for split in (task.train, task.val, task.test)] == [14062, 781, 781]
    first = "".join(order[k] for k in task.val.x[0].tolist())
    assert text.index(first) == 64 * 14062


def test_contexts_are_of_the_text_and_of_one_part_of_it() -> None:
    """Eight characters and the next one, as they stand in the text; training positions are all different."""
    task = load("charmlp")
    text = lzma.decompress(charlm.TEXT.read_bytes()).decode()
    order = [symbol for symbol, _ in Counter(text).most_common()]
    assert [len(split) for split in (task.train, task.val, task.test)] == [1 << 19, 3846, 7142]
    parts = (text[:900_000], text[900_000:950_000], text[950_000:])
    for split, part in zip((task.train, task.val, task.test), parts, strict=True):
        start = 0
        for k in range(0, 200):  # in order of the text
            window = "".join(order[number] for number in [*split.x[k].tolist(), int(split.y[k])])
            start = part.index(window, start) + 1
    with pytest.raises(UsageError, match="charmlp wants that file"):
        load("charmlp", data_dir=Path(__file__).parent)


def test_a_single_pass_repeats_nothing() -> None:
    """Ten times the task's own training is less than a pass."""
    task = load("charmlp")
    steps = 10 * task.budget.train_steps
    assert steps < task.epoch
    seen = [torch.cat([batches.next() for _ in range(steps)]) for batches in (Batches(task, 1), Batches(task, 2))]
    for order in seen:
        assert len(order.unique()) == len(order) == steps * 128
        assert order.min() >= 0
        assert order.max() < len(task.train)
        assert abs(float(order.double().mean()) / len(task.train) - 0.5) < 0.01  # from everywhere
    assert not torch.equal(*seen)
    assert torch.equal(seen[0][:128], Batches(task, 1).next())


def test_orders_are_shuffles_of_one_generator() -> None:
    """Whoever asks first, and whoever else has asked meanwhile."""
    task = load("digits")
    shuffle = torch.Generator().manual_seed(derive_seed(7, "order"))
    want = [torch.randperm(1100, generator=shuffle) for _ in range(3)]
    for _ in range(2):
        batches, other = Batches(task, 7), Batches(task, 7)
        for epoch in want:
            assert torch.equal(torch.cat([batches.next() for _ in range(11)]), epoch)
        assert torch.equal(other.next(), want[0][:100])


def test_small_fashion_is_means_of_pixels() -> None:
    large, small = load("fashion"), load("fashion14")
    assert small.test.x.shape[1:] == (1, 14, 14)
    assert torch.equal(small.test.y, large.test.y)
    means = large.test.x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    fitted = np.polyfit(means.flatten().numpy(), small.test.x.flatten().numpy(), 1)
    assert np.abs(np.polyval(fitted, means.numpy()) - small.test.x[:, 0].numpy()).max() < 1e-4


def test_a_teacher_draws_its_classes() -> None:
    """By the class frequencies in a hundred groups of examples that the teacher takes for alike, and by its own loss,
    which is the ceiling that the docs name."""
    task = load("teacher")
    random = np.random.RandomState(teacher._SEED)
    master = teacher.Teacher(random)
    scales = 1 / np.arange(1, 33)
    numbers = task.test.x[:, 0, 0].double().numpy() / (scales / np.sqrt((scales**2).mean()))
    assert abs(numbers.mean()) < 0.01
    assert numbers.std(0) == pytest.approx(np.ones(32), abs=0.05)
    logits = master.logits(numbers)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert logits.std() == pytest.approx(4.0, abs=0.1)
    drawn = task.test.y.numpy()
    counts, expected = np.bincount(drawn, minlength=10), shares.sum(0)
    spread = np.sqrt((shares * (1 - shares)).sum(0))
    assert (np.abs(counts - expected) < 4.5 * spread).all()
    loss = -np.log(shares[np.arange(len(drawn)), drawn])
    entropy = -(shares * np.log(shares)).sum(1)
    assert loss.mean() == pytest.approx(entropy.mean(), abs=4.5 * loss.std() / np.sqrt(len(loss)))
    assert task.reward(Measured(0.0, float(loss.mean()))) == pytest.approx(0.67, abs=0.02)


@pytest.mark.parametrize("name", ["teacher", "mnist1d", "chirps"])
def test_ten_times_the_training_sees_nothing_twice(name: str) -> None:
    task = load_or_skip(name)
    assert 10 * task.budget.train_steps * task.budget.batch_size <= len(task.train)
    assert len(task.train.x[:, 0, 0, :12].unique(dim=0)) == len(task.train)


@pytest.mark.parametrize(
    ("name", "least"), [("charmlp", 0.3), ("teacher", 0.25), ("mnist1d", 0.35), ("fashion14", 0.7)]
)
def test_a_network_learns_and_learning_by_chance_scores_nothing(name: str, least: float) -> None:
    """Adam in the task's own budget; a rule that does not move leaves a guess that is no better than the blind one."""
    task = load_or_skip(name)
    protocol = ScoringProtocol(engine="auto", learning_rates=(0.01,))
    assert score(compile_rule("adam"), task, protocol, seed=1).reward > least
    still = score(compile_rule("0 * g"), task, protocol, seed=1)
    assert still.reward < (0.25 if task.score == "accuracy" else 1e-9)


def test_signals_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step against mnist1d.transform, which draws the same numbers one by one."""
    pytest.importorskip("mnist1d")
    from mnist1d.data import get_dataset_args, get_templates
    from mnist1d.transform import transform

    args, templates = get_dataset_args(), get_templates()
    draws = mnist1d.Draws.of(np.random.RandomState(3), 40, args)
    shapes = templates["x"][np.arange(40) % 10]
    draws.pad[:3], draws.move[:3] = (0.0, 0.5, 1 - 1e-12), (0, 1, 47)
    ours = mnist1d.signals(shapes, draws, args)
    for k in range(40):
        numbers = iter([draws.pad[k], draws.scale[k], draws.shear[k]])
        noise = iter([draws.smooth[k], draws.rough[k]])
        monkeypatch.setattr(np.random, "rand", lambda numbers=numbers: next(numbers))
        monkeypatch.setattr(np.random, "randn", lambda *shape, noise=noise: next(noise))
        monkeypatch.setattr(np.random, "choice", lambda most, k=k: int(draws.move[k]))
        theirs, _ = transform(shapes[k], templates["t"], args)
        np.testing.assert_allclose(ours[k], theirs, rtol=0, atol=1e-12)


def test_without_the_package_of_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(UsageError, match=r"install it with: pip install 'nos-ext\[mnist1d\]'"):
        load("mnist1d")


def test_wrong_texts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text.txt cannot be read as UTF-8 text"):
        load("charlm", data_dir=tmp_path)
    (tmp_path / "text.txt").write_bytes(b"\xff" * 9000)
    with pytest.raises(UsageError, match=r"text.txt cannot be read as UTF-8 text"):
        load("charlm", data_dir=tmp_path)
    (tmp_path / "text.txt").write_text("short")
    with pytest.raises(UsageError, match=r"the text has 5 characters; charlm wants 3840 or more"):
        load("charlm", data_dir=tmp_path)


def test_translation_pairs() -> None:
    """The first sentence back from its numbers, the targets shifted by one, padding and unknown words not asked for."""
    task = load("translate")
    pairs = [line.split("\t") for line in lzma.decompress(translate.PAIRS.read_bytes()).decode().splitlines()]
    assert all(len(pair) == 2 for pair in pairs)
    assert [len(split) for split in (task.train, task.val, task.test)] == [6019, 335, 335]
    words = [
        translate.vocabulary([translate.tokens(pair[side]) for k, pair in enumerate(pairs) if k % 20 > 1])
        for side in (0, 1)
    ]
    names = [{number: word for word, number in side.items()} for side in words]
    source = translate.tokens(pairs[0][0])
    assert " ".join(source) == "in the beginning god created the heaven and the earth ."
    row = task.val.x[0].tolist()
    assert [names[0].get(k, "?") for k in row[: len(source)]] == [w if w in words[0] else "?" for w in source]
    assert row[len(source) : 20] == [0] * (20 - len(source))
    target = translate.tokens(pairs[0][1])
    assert row[20] == 2
    y = task.val.y[0].tolist()
    assert [names[1].get(k, "?") for k in y[: len(target)]] == [w if w in words[1] else "?" for w in target]
    assert y[len(target)] == 2
    assert set(y[len(target) + 1 :]) == {IGNORED}
    known = (task.val.y != IGNORED) & (task.val.y != 2)
    shifted = task.val.x[:, 21:]
    assert torch.equal(task.val.y[:, :-1][known[:, :-1]], shifted[known[:, :-1]])


def test_wrong_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pairs.tsv cannot be read as UTF-8 text"):
        load("translate", data_dir=tmp_path)
    (tmp_path / "pairs.tsv").write_text("one\tuno\ntwo\n")
    with pytest.raises(UsageError, match=r"pairs.tsv line 2 is not 'source TAB target'"):
        load("translate", data_dir=tmp_path)
    (tmp_path / "pairs.tsv").write_text("one\tuno\n")
    with pytest.raises(UsageError, match="has 1 pairs; translate wants 100 or more"):
        load("translate", data_dir=tmp_path)


def test_what_is_carried_is_small_and_licensed() -> None:
    data = charlm.TEXT.parent
    assert charlm.TEXT.stat().st_size + translate.PAIRS.stat().st_size < 600_000
    assert "public domain" in (data / "bible.LICENSE").read_text()
    assert len(lzma.decompress(charlm.TEXT.read_bytes())) > 1_000_000


def test_bible_reader(tmp_path: Path) -> None:
    """A module of two verses in the exact layout."""
    for testament, verses in (
        ("ot", [b"", b"<w lemma='x'>In</w> the <note>no</note>day\xc2\xb6, <title>T</title>so"]),
        ("nt", [b"Y <b>fu\xc3\xa9</b>."]),
    ):
        folder = tmp_path / "modules/texts/ztext/m"
        folder.mkdir(parents=True, exist_ok=True)
        text = b"".join(verses)
        packed = zlib.compress(text)
        (folder / f"{testament}.bzz").write_bytes(packed)
        (folder / f"{testament}.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(text)))
        entries = [struct.pack("<IIH", 0, sum(map(len, verses[:k])), len(verse)) for k, verse in enumerate(verses)]
        (folder / f"{testament}.bzv").write_bytes(b"".join(entries))
    assert read_module(tmp_path, "m") == ["", "In the day, so", "Y fu\u00e9."]


def test_patches_of_different_splits_share_no_pixel() -> None:
    """On a photo whose pixels are all different."""
    codes = np.arange(6 * 64 * 7 * 64).reshape(6 * 64, 7 * 64)
    photo = np.stack([codes & 255, codes >> 8 & 255, codes >> 16], -1).astype(np.uint8)
    dealt = patch10._deal(photo, np.random.RandomState(1))
    seen = {}
    for split, patches in dealt.items():
        wide = patches.astype(np.int64)
        seen[split] = set((wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)).ravel().tolist())
        assert patches.shape == ({"train": 800}.get(split, 100), 32, 32, 3)
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_photos_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(patch10, "_SKIMAGE", ("no_such_photo.png",))
    with pytest.raises(SearchError, match=r"no_such_photo.png is missing"):
        load("patch10")
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(SearchError, match="install them with: pip install scikit-learn scikit-image"):
        load("patch10")
