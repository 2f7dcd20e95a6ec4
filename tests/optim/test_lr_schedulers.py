"""The learning-rate decays: TensorFlow's values, resuming, chaining, tensor learning rates, the figure."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from nos_ext.optim import PowerSign
from nos_ext.optim._decay_plot import figure, main
from nos_ext.optim._lr_factors import gaussian
from nos_ext.schedules import CosineDecay, LinearCosineDecay, NoisyLinearCosineDecay, StepDecay
from tests.fresh import python


def optimizer(*lrs: Any) -> PowerSign:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in lrs or (1.0,)]
    return PowerSign(groups)


def run(scheduler: Any, steps: int) -> list[float]:
    out = [float(scheduler.optimizer.param_groups[0]["lr"])]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        out.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    return out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1.001, 0.64116504, 0.251, 0.03761165, 0.001, 0.001)),
        ({"alpha": 0.1, "beta": 1e-4, "num_periods": 5}, (1.1001, 0.42510, 0.0001, 0.1751, 0.1001, 0.1001)),
    ],
)
def test_linear_cosine_decay_is_tensorflow_s(options: dict[str, float], expected: tuple[float, ...]) -> None:
    seen = run(LinearCosineDecay(optimizer(), 1000, **options), 1250)
    assert [seen[s] for s in (0, 250, 500, 750, 1000, 1250)] == pytest.approx(expected, abs=1e-6)


def test_cosine_and_step_decay() -> None:
    seen = run(CosineDecay(optimizer(2.0), 10, alpha=0.1), 12)
    assert [seen[s] for s in (0, 5, 10, 12)] == pytest.approx((2.0, 1.1, 0.2, 0.2), abs=1e-12)
    seen = run(StepDecay(optimizer(), 3, gamma=0.5), 7)
    assert seen == pytest.approx((1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25), abs=0)


def test_noise() -> None:
    """Without variance it is the plain decay; its moments are those of TensorFlow's documentation."""
    plain = run(LinearCosineDecay(optimizer(), 50), 60)
    assert run(NoisyLinearCosineDecay(optimizer(), 50, initial_variance=0.0), 60) == plain
    assert run(NoisyLinearCosineDecay(optimizer(), 50, seed=3), 60) == run(
        NoisyLinearCosineDecay(optimizer(), 50, seed=3), 60
    )
    assert run(NoisyLinearCosineDecay(optimizer(), 50, seed=3), 9) != run(
        NoisyLinearCosineDecay(optimizer(), 50, seed=4), 9
    )
    n = 4000
    for step, variance in ((0, 1.0), (9, 0.28184), (99, 0.07943)):
        draws = np.array([gaussian(seed=seed)(step) for seed in range(n)])
        assert abs(draws.mean()) < 4 * (variance / n) ** 0.5
        assert draws.var() == pytest.approx(variance, rel=4 * (2 / n) ** 0.5)


@pytest.mark.parametrize("make", [LinearCosineDecay, NoisyLinearCosineDecay, CosineDecay, StepDecay])
def test_resumed_run_continues_exactly(make: Any) -> None:
    straight = run(make(optimizer(0.3, 0.4), 20), 30)
    first = make(optimizer(0.3, 0.4), 20)
    head = run(first, 11)
    file = io.BytesIO()
    torch.save([first.state_dict(), first.optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    second = make(optimizer(9.0, 9.0), 20)
    second.load_state_dict(states[0])
    second.optimizer.load_state_dict(states[1])
    assert head + run(second, 19)[1:] == straight


@pytest.mark.parametrize("make", [LinearCosineDecay, CosineDecay, StepDecay])
def test_last_epoch(make: Any) -> None:
    straight = run(make(optimizer(), 20), 20)
    opt = optimizer(straight[8])
    opt.param_groups[0]["initial_lr"] = 1.0
    assert run(make(opt, 20, last_epoch=8), 11) == pytest.approx(straight[9:], rel=1e-12)


def test_chained() -> None:
    """Factors of chained schedulers multiply."""
    alone = run(LinearCosineDecay(optimizer(), 20), 12)
    opt = optimizer()
    warmup = lr_scheduler.LinearLR(opt, 0.1, total_iters=5)
    chained = lr_scheduler.ChainedScheduler([warmup, LinearCosineDecay(opt, 20)], opt)
    seen = run(chained, 12)
    warm = run(lr_scheduler.LinearLR(optimizer(), 0.1, total_iters=5), 12)
    assert seen == pytest.approx([a * w for a, w in zip(alone, warm, strict=True)], rel=1e-12)


def test_sequential() -> None:
    opt = optimizer()
    parts: list[Any] = [lr_scheduler.LinearLR(opt, 0.1, total_iters=4), LinearCosineDecay(opt, 10)]
    seen = run(lr_scheduler.SequentialLR(opt, parts, [4]), 14)
    assert seen[4:] == pytest.approx(run(LinearCosineDecay(optimizer(), 10), 10), rel=1e-12)


def test_lr_changed_by_hand_is_respected() -> None:
    scheduler = LinearCosineDecay(optimizer(), 20)
    run(scheduler, 4)
    scheduler.optimizer.param_groups[0]["lr"] *= 0.5
    straight = run(LinearCosineDecay(optimizer(), 20), 10)
    assert run(scheduler, 6)[1:] == pytest.approx([0.5 * x for x in straight[5:11]], rel=1e-12)


@pytest.mark.parametrize("make", [LinearCosineDecay, NoisyLinearCosineDecay, CosineDecay, StepDecay])
def test_tensor_lr_is_kept(make: Any) -> None:
    lr = torch.tensor(1.0)
    scheduler = make(optimizer(lr), 10)
    seen = run(scheduler, 12)
    assert scheduler.optimizer.param_groups[0]["lr"] is lr
    assert seen == pytest.approx(run(make(optimizer(), 10), 12), abs=1e-6)


@pytest.mark.parametrize("make", [LinearCosineDecay, CosineDecay])
def test_a_group_that_comes_later_decays_from_then_on(make: Any) -> None:
    """As with torch's CosineAnnealingLR its lr is multiplied by the ratio of the factors."""
    alone = run(make(optimizer(), 10), 10)
    scheduler = make(optimizer(), 10)
    start = run(scheduler, 4)
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.3})
    found = [(group["lr"]) for _ in range(3) for group in stepped(scheduler)]
    assert start + found[::2] == pytest.approx(alone[: len(start) + 3])
    assert found[1::2] == pytest.approx([0.3 * lr / start[-1] for lr in found[::2]])


def stepped(scheduler: Any) -> list[dict[str, Any]]:
    scheduler.optimizer.step()
    scheduler.step()
    return list(scheduler.optimizer.param_groups)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (LinearCosineDecay, {"decay_steps": 0}, "decay_steps is 0; pass a positive number"),
        (LinearCosineDecay, {"decay_steps": 9, "num_periods": -1}, "num_periods is -1; pass a positive number"),
        (NoisyLinearCosineDecay, {"decay_steps": 9, "initial_variance": -1}, "initial_variance is -1"),
        (NoisyLinearCosineDecay, {"decay_steps": 9, "seed": -1}, "seed is -1"),
        (CosineDecay, {"decay_steps": float("nan")}, "decay_steps is nan"),
        (
            NoisyLinearCosineDecay,
            {"decay_steps": 9, "variance_decay": 400},
            "variance_decay is 400; pass a number from -20",
        ),
        (NoisyLinearCosineDecay, {"decay_steps": 9, "variance_decay": -400}, "variance_decay is -400"),
        (StepDecay, {"step_size": 0}, "step_size is 0"),
    ],
)
def test_refused(make: Any, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(optimizer(), **arguments)


def test_figure(tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    command = "import runpy; runpy.run_module('nos_ext.schedules', run_name='__main__', alter_sys=True)"
    done = python(command, "--plot", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(path)
    root = ElementTree.parse(path).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"stepwise decay", "cosine decay", "linear cosine decay", "step"} <= texts
    assert path.read_bytes() == figure("svg")  # equal whenever it is drawn
    for name, status, message in (("no/out.svg", 1, "cannot be written"), ("out.jpg", 2, "ends in .svg, .png or .pdf")):
        failed = python(command, "--plot", tmp_path / name)
        assert failed.returncode == status
        assert message in failed.stderr


def test_figure_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="1"):
        main(["--plot", "out.svg"])
    assert "pip install 'nos-ext[plot]'" in capsys.readouterr().err
