"""Owns the paper's child network, a small ConvNet.

Its blocks (two in the paper) are a 3x3 convolution, ReLU, batch norm and 2x2 max-pooling; one linear layer follows.
(One replica has a hidden layer of 1024 between, which is left out for speed.) Two choices for speed change no shape and
no weight: grey images meet the first kernels as one matrix product over their 3x3 neighbourhoods, and everything after
it, as colour images from the start, lies channels-last.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights, batch_norm


@functools.lru_cache(maxsize=8)
def _neighbourhoods(height: int, width: int, device: torch.device) -> Tensor:
    """Returns for each pixel the numbers of the 9 around it, in order. They are counted from 1, and are 0 outside of
    the image."""
    numbers = torch.arange(1, height * width + 1, device=device).view(height, width)
    return F.pad(numbers, (1, 1, 1, 1)).unfold(0, 3, 1).unfold(1, 3, 1).flatten()


def _conv_grey(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Computes conv2d(x, kernel, bias, padding=1) for one input channel; the output is channels-last."""
    n, _, height, width = x.shape
    around = F.pad(x.flatten(1), (1, 0)).index_select(1, _neighbourhoods(height, width, x.device)).view(-1, 9)
    return torch.addmm(bias, around, kernel.flatten(1).t()).view(n, height, width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ConvNet(Net):
    """A ConvNet of `depth` blocks with `width` filters in each convolution. It maps (n, channels, *size) to (n,
    classes)."""

    channels: int
    size: tuple[int, int]
    width: int
    classes: int
    depth: int = 2

    def init(self, generator: torch.Generator) -> Weights:
        """Draws He-uniform convolutions and a LeCun-uniform linear layer; biases are zero and batch-norm scales are
        one."""
        draw = Draw(generator)
        running: list[Tensor] = []
        inputs = self.channels
        for _ in range(self.depth):
            draw.uniform(self.width, inputs, 3, 3, gain=math.sqrt(6))
            draw.zeros(self.width)
            draw.norm(self.width)
            running += [torch.zeros(self.width), torch.ones(self.width)]
            inputs = self.width
        draw.linear(self.width * (self.size[0] // 2**self.depth) * (self.size[1] // 2**self.depth), self.classes)
        return draw.weights(running)

    def layers(self) -> list[tuple[str, int]]:
        return [("convolution", self.width), ("norm_pool", 0)] * self.depth + [("linear", self.classes)]

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        """Returns (n, classes). Training uses the batch's own statistics and updates the running ones."""
        if training:
            weights.seen += 1
        momentum = weights.momentum
        h = x.contiguous(memory_format=torch.channels_last) if self.channels > 1 else x
        for block in range(self.depth):
            kernel, bias, scale, shift = weights.params[4 * block : 4 * block + 4]
            mean, variance = weights.running[2 * block : 2 * block + 2]
            h = F.relu(_conv_grey(h, kernel, bias) if h.shape[1] == 1 else F.conv2d(h, kernel, bias, padding=1))
            h = batch_norm(h, mean, variance, scale, shift, training=training, momentum=momentum)
            h = F.max_pool2d(h, 2)
        return F.linear(h.flatten(1), weights.params[-2], weights.params[-1])
