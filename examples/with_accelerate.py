"""Accelerate with Lion as a RuleOptimizer: prepared model, optimizer and scheduler, and a checkpoint in between.

python examples/with_accelerate.py [--steps 160]
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from accelerate import Accelerator
from torch import nn

from nos_ext.optim import RuleOptimizer, library
from nos_ext.schedules import CosineDecay


def main() -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=160)
    options = parser.parse_args()
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = RuleOptimizer(net.parameters(), library.lion, lr=1e-2, weight_decay=0.01)
    scheduler = CosineDecay(optimizer, decay_steps=options.steps)
    x = torch.randn(512, 8)
    data = torch.utils.data.TensorDataset(x, x[:, :1] * x[:, 1:2])
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    net, optimizer, scheduler, loader = accelerator.prepare(net, optimizer, scheduler, loader)

    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        while len(losses) < options.steps:
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(net(inputs), targets)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                losses.append(loss.item())
            accelerator.save_state(folder)
            accelerator.load_state(folder)
    first, last = sum(losses[:8]) / 8, sum(losses[-8:]) / 8
    accelerator.print(f"loss {first:.3f} -> {last:.3f}")
    return first, last


if __name__ == "__main__":
    main()
