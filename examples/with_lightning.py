"""Lightning with AddSign and linear cosine decay, in bfloat16 autocast with clipped and accumulated gradients.

python examples/with_lightning.py [--steps 150]
"""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

import lightning
import torch
from torch import nn

from nos_ext.optim import AddSign
from nos_ext.schedules import LinearCosineDecay


class Circle(lightning.LightningModule):
    """Tells points inside a circle from those outside."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = AddSign(self.parameters(), lr=0.5)
        scheduler = LinearCosineDecay(optimizer, decay_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main() -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    x = torch.rand(1024, 2) * 2 - 1
    y = (x.square().sum(1) < 0.6).long()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64, shuffle=True)
    model = Circle(options.steps)
    trainer = lightning.Trainer(
        max_steps=options.steps, max_epochs=-1, accelerator="cpu", precision="bf16-mixed", gradient_clip_val=1.0,
        accumulate_grad_batches=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader)
    first, last = sum(model.losses[:10]) / 10, sum(model.losses[-10:]) / 10
    print(f"loss {first:.3f} -> {last:.3f}")
    return first, last


if __name__ == "__main__":
    main()
