"""Lightning's Trainer with default settings, its checkpoints, and Fabric, which makes a subclass of the optimizer's class
while a program runs. tests/optim/test_lightning.py looks at how they scale and clip gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.frameworks.training import MAKERS, assert_close, assert_learnt, assert_same, examples, network, torch_adamw

lightning = pytest.importorskip("lightning")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]
Make = Callable[[Any], torch.optim.Optimizer]


def loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*examples()), batch_size=16)


class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
    def __init__(self, make: Make) -> None:
        super().__init__()
        self.net, self.make = network(), make

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=60)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(make: Make, folder: Path, precision: str, *, epochs: int = 15, path: Path | None = None) -> Any:
    module = Module(make)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", precision=precision, gradient_clip_val=0.5, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, loader(), ckpt_path=path)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module.net


@pytest.mark.parametrize("name", MAKERS)
def test_mixed_precision_clipping_and_one_cycle(name: str, tmp_path: Path) -> None:
    assert_learnt(train(MAKERS[name], tmp_path, "bf16-mixed"))


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_goes_on(name: str, tmp_path: Path) -> None:
    whole = train(MAKERS[name], tmp_path, "32-true")
    train(MAKERS[name], tmp_path, "32-true", epochs=6)
    resumed = train(MAKERS[name], tmp_path, "32-true", path=tmp_path / "6.ckpt")
    assert_same(list(resumed.parameters()), list(whole.parameters()))
    if name == "adamw":
        assert_close(whole, train(torch_adamw, tmp_path, "32-true"))


@pytest.mark.parametrize("name", MAKERS)
def test_fabric(name: str, tmp_path: Path) -> None:
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    net, plain = network(), network()
    optimizer, expected = MAKERS[name](net.parameters()), MAKERS[name](plain.parameters())
    model, wrapped = fabric.setup(net, optimizer)
    data = fabric.setup_dataloaders(loader())
    for epoch in range(3):
        for x, y in data:
            wrapped.zero_grad()
            fabric.backward(torch.nn.functional.mse_loss(model(x), y))
            fabric.clip_gradients(model, wrapped, max_norm=1.0)
            wrapped.step()
            expected.zero_grad()
            torch.nn.functional.mse_loss(plain(x), y).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            expected.step()
        assert_same(list(net.parameters()), list(plain.parameters()))
        if epoch == 1:
            fabric.save(tmp_path / "state.ckpt", {"model": model, "optimizer": wrapped})
            optimizer.state.clear()
            fabric.load(tmp_path / "state.ckpt", {"model": model, "optimizer": wrapped})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("PowerSign", {"lr": 0.05, "sign_decay": "linear", "total_steps": 20}),
        ("AddSign", {}),
        ("RuleOptimizer", {"rule": "g * (1 + sign(g) * sign(m))", "lr": 0.05}),
    ],
)
def test_the_command_line_makes_them_from_text(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    """LightningCLI reads names and arguments from a file, and what they may be from the signatures."""
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    class Plain(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def train_dataloader(self) -> Any:
            return loader()

    trainer = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path)}
    optimizer = {"class_path": f"nos_ext.optim.{name}", "init_args": arguments}
    settings = {"trainer": {**trainer, **quiet}, "optimizer": optimizer}
    cli = LightningCLI(Plain, run=False, save_config_callback=None, args=settings)
    cli.trainer.fit(cli.model)
    (made,) = cli.trainer.optimizers
    assert type(made).__name__ == name
    assert made.param_groups[0]["lr"] == arguments.get("lr", 0.1)
    assert len(made.state) == 4
