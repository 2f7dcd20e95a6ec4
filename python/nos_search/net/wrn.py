"""Owns the Wide ResNet (Zagoruyko, Komodakis 2016), on which the paper trains its best rules again.

Of depth 6n + 4, it has a 3x3 convolution of 16 filters, three groups of n pre-activation blocks (batch norm, ReLU, 3x3
convolution, twice) with 16k, 32k and 64k filters, of which the second and third halve the image, then batch norm, ReLU,
global average pooling and a linear layer. As in the original, there is no dropout and convolutions have no biases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights, batch_norm


@dataclass(frozen=True)
class WideResNet(Net):
    """A Wide ResNet of depth `depth`, which is 6n + 4, and the widening factor `width`. It maps (n, channels, height,
    width) to (n, classes)."""

    channels: int
    width: int
    depth: int
    classes: int

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yields the inputs, outputs and stride of each block."""
        inputs = 16
        for group in range(3):
            outputs = 16 * self.width * 2**group
            for block in range((self.depth - 4) // 6):
                yield inputs, outputs, 2 if group and not block else 1
                inputs = outputs

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        running: list[Tensor] = []

        def norm(width: int) -> None:
            draw.norm(width)
            running.extend([torch.zeros(width), torch.ones(width)])

        def conv(inputs: int, outputs: int, size: int) -> None:
            draw.uniform(outputs, inputs, size, size, gain=math.sqrt(6))

        conv(self.channels, 16, 3)
        outputs = 16
        for inputs, outputs, stride in self._blocks():
            norm(inputs)
            conv(inputs, outputs, 3)
            norm(outputs)
            conv(outputs, outputs, 3)
            if stride != 1 or inputs != outputs:
                conv(inputs, outputs, 1)
        norm(outputs)
        draw.linear(outputs, self.classes)
        return draw.weights(running)

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        if training:
            weights.seen += 1
        momentum = weights.momentum
        params, running = iter(weights.params), iter(weights.running)

        def norm_relu(h: Tensor) -> Tensor:
            scale, shift, mean, variance = next(params), next(params), next(running), next(running)
            return F.relu(batch_norm(h, mean, variance, scale, shift, training=training, momentum=momentum))

        h = F.conv2d(x.contiguous(memory_format=torch.channels_last), next(params), padding=1)
        for inputs, outputs, stride in self._blocks():
            active = norm_relu(h)
            inner = F.conv2d(active, next(params), stride=stride, padding=1)
            inner = F.conv2d(norm_relu(inner), next(params), padding=1)
            reshaped = stride != 1 or inputs != outputs
            h = inner + (F.conv2d(active, next(params), stride=stride) if reshaped else h)
        h = norm_relu(h).mean((2, 3))
        return F.linear(h, next(params), next(params))
