"""ignite: its trainers, its schedules of any value in a param group, its search for a learning rate, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.frameworks.training import MAKERS, assert_close, assert_learnt, assert_same, examples, network, torch_adamw

pytest.importorskip("ignite")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]


def loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*examples()), batch_size=16)


def train(make: Callable[[Any], torch.optim.Optimizer], folder: Path, *, interrupted: bool = False) -> torch.nn.Module:
    from ignite.engine import Events, create_supervised_trainer
    from ignite.handlers import Checkpoint, CosineAnnealingScheduler, DiskSaver

    def parts() -> tuple[Any, Any, Any, Any]:
        net = network()
        optimizer = make(net.parameters())
        trainer = create_supervised_trainer(net, optimizer, torch.nn.functional.mse_loss)
        schedule = CosineAnnealingScheduler(optimizer, "lr", 0.05, 0.001, cycle_size=80)
        trainer.add_event_handler(Events.ITERATION_STARTED, schedule)
        return net, optimizer, trainer, schedule

    net, optimizer, trainer, schedule = parts()
    if interrupted:
        saved = {"net": net, "optimizer": optimizer, "trainer": trainer, "schedule": schedule}
        saver = Checkpoint(saved, DiskSaver(folder, require_empty=False, create_dir=True), filename_pattern="half.pt")
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=6), saver)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=6), lambda engine: engine.terminate())
        trainer.run(loader(), max_epochs=15)
        net, optimizer, trainer, schedule = parts()
        to_load = {"net": net, "optimizer": optimizer, "trainer": trainer, "schedule": schedule}
        Checkpoint.load_objects(to_load, torch.load(folder / "half.pt", weights_only=True))
    trainer.run(loader(), max_epochs=15)
    return net


@pytest.mark.parametrize("name", MAKERS)
def test_training_a_schedule_and_a_checkpoint(name: str, tmp_path: Path) -> None:
    net = train(MAKERS[name], tmp_path)
    assert_learnt(net)
    assert_same(list(train(MAKERS[name], tmp_path, interrupted=True).parameters()), list(net.parameters()))
    if name == "adamw":
        assert_close(net, train(torch_adamw, tmp_path))


def test_a_schedule_of_another_value() -> None:
    from ignite.handlers import PiecewiseLinear

    optimizer = MAKERS["powersign"](network().parameters())
    schedule = PiecewiseLinear(optimizer, "beta", [(0, 0.5), (10, 0.9)])
    seen = []
    for _ in range(3):
        schedule(None)
        seen.append(optimizer.param_groups[0]["beta"])
    assert seen == pytest.approx([0.5, 0.54, 0.58])
    assert optimizer.param_groups[0]["betas"] == (seen[-1],)


@pytest.mark.parametrize("name", MAKERS)
def test_the_search_for_a_learning_rate_leaves_no_trace(name: str) -> None:
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    net = network()
    optimizer = MAKERS[name](net.parameters())
    trainer = create_supervised_trainer(net, optimizer, torch.nn.functional.mse_loss)
    finder = FastaiLRFinder()
    lr = optimizer.param_groups[0]["lr"]
    with finder.attach(trainer, {"model": net, "optimizer": optimizer}, start_lr=1e-4, end_lr=0.5, num_iter=20) as run:
        run.run(loader())
    assert len(finder.get_results()["lr"]) > 5
    assert optimizer.param_groups[0]["lr"] == lr
    assert not optimizer.state
    assert_same(list(net.parameters()), list(network().parameters()))
