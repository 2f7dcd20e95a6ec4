"""Owns the autoencoder (Hinton, Salakhutdinov 2006), which says the class of each number of an image after it has
squeezed the image through a few units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights

_WIDER = 4  # units of a hidden layer for each one of the code


@dataclass(frozen=True)
class Autoencoder(Net):
    """An autoencoder with a code of `width` numbers, and on either side of it `depth` hidden layers of 4 * width ReLU
    units. It maps (n, ...) of `pixels` numbers to (n, pixels, classes)."""

    pixels: int
    width: int
    depth: int
    classes: int

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        hidden = _WIDER * self.width
        for first, last in ((self.pixels, self.width), (self.width, self.pixels * self.classes)):
            inputs = first
            for _ in range(self.depth):
                draw.linear(inputs, hidden, gain=math.sqrt(6))
                inputs = hidden
            draw.linear(inputs, last)
        return draw.weights()

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        h, params = x.flatten(1), weights.params
        plain = (self.depth, 2 * self.depth + 1)  # the code and the answer have no ReLU
        for layer in range(2 * self.depth + 2):
            h = F.linear(h, params[2 * layer], params[2 * layer + 1])
            if layer not in plain:
                h = F.relu(h)
        return h.view(len(h), self.pixels, self.classes)
