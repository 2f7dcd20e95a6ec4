"""Owns the multilayer perceptron, which has hidden layers of ReLU units and no normalisation: on flattened images, and
on the embeddings of a few tokens, side by side (Bengio et al. 2003)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights

EMBEDDING = 16  # numbers for each token


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
        self.draw(draw)
        return draw.weights()

    def draw(self, draw: Draw) -> None:
        inputs = self.inputs
        for _ in range(self.depth):
            draw.linear(inputs, self.width, gain=math.sqrt(6))
            inputs = self.width
        draw.linear(inputs, self.classes)

    def layers(self) -> list[tuple[str, int]]:
        return [("linear", self.width), ("relu", 0)] * self.depth + [("linear", self.classes)]

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        h = x.flatten(1)
        for layer in range(self.depth):
            h = F.relu(F.linear(h, weights.params[2 * layer], weights.params[2 * layer + 1]))
        return F.linear(h, weights.params[-2], weights.params[-1])


@dataclass(frozen=True)
class ContextMlp(Net):
    """A perceptron on the embeddings of all tokens of an example, which maps (n, length) tokens to (n, classes)."""

    vocabulary: int
    mlp: Mlp

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        draw.uniform(self.vocabulary, EMBEDDING, fan=1)
        self.mlp.draw(draw)
        return draw.weights()

    def layers(self) -> list[tuple[str, int]]:
        return [("embedding", EMBEDDING), *self.mlp.layers()]

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        embedding, *rest = weights.params
        return self.mlp.logits(Weights(rest), F.embedding(x, embedding), training=training)
