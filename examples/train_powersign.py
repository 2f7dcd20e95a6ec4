"""A small ConvNet on scikit-learn's handwritten digits, trained with PowerSign and linear cosine decay.

python examples/train_powersign.py [--epochs 12] [--lr 0.1] [--seed 0]
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from nos_ext.optim import PowerSign
from nos_ext.schedules import LinearCosineDecay


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1797 images of 8 x 8 pixels in [0, 1], and their classes, in random order."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return images[order], torch.tensor(data.target)[order]


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    images, classes = digits()
    train, test, batch = slice(0, 1500), slice(1500, None), 50
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    if options.epochs < 1:
        parser.error(f"--epochs {options.epochs} is below 1")
    steps = options.epochs * (1500 // batch)
    optimizer = PowerSign(net.parameters(), lr=options.lr, sign_decay="cosine", total_steps=steps)
    scheduler = LinearCosineDecay(optimizer, decay_steps=steps)

    accuracy = 0.0
    for epoch in range(1, options.epochs + 1):
        for index in torch.randperm(1500).split(batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images[train][index]), classes[train][index])
            loss.backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            accuracy = (net(images[test]).argmax(1) == classes[test]).float().mean().item()
        print(f"epoch {epoch:2}  loss {loss.item():.4f}  lr {scheduler.get_last_lr()[0]:.5f}  test {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
