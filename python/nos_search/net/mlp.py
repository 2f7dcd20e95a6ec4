"""Owns the multilayer perceptron on flattened images, which has hidden layers of ReLU units and no normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights


@dataclass(frozen=True)
class Mlp(Net):
    """A perceptron of `depth` hidden layers with `width` units each. It maps (n, ...) of `inputs` numbers to (n,
    classes)."""

    inputs: int
    width: int
    depth: int
    classes: int

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        inputs = self.inputs
        for _ in range(self.depth):
            draw.linear(inputs, self.width, gain=math.sqrt(6))
            inputs = self.width
        draw.linear(inputs, self.classes)
        return draw.weights()

    def layers(self) -> list[tuple[str, int]]:
        return [("linear", self.width), ("relu", 0)] * self.depth + [("linear", self.classes)]

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        h = x.flatten(1)
        for layer in range(self.depth):
            h = F.relu(F.linear(h, weights.params[2 * layer], weights.params[2 * layer + 1]))
        return F.linear(h, weights.params[-2], weights.params[-1])
