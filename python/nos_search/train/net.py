"""Owns the child network: the paper's small ConvNet as plain functions of a list of tensors.

Two blocks of 3x3 convolution, ReLU, batch norm and 2x2 max-pooling, then one linear layer. (One replica has a hidden
layer of 1024 between; left out for speed.) Weights are a flat list, because a rule updates a list of tensors; every
random number comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCKS = 2


@dataclass
class Weights:
    """params: learned, updated in place by the rule. running: per block mean and variance for evaluation.

    seen: batches.
    """

    params: list[Tensor]
    running: list[Tensor]
    seen: int = 0


@dataclass(frozen=True)
class ConvNet:
    """Shape of the network: input (n, channels, *size), output (n, classes) logits.

    `width`: filters per convolution.
    """

    channels: int
    size: tuple[int, int]
    width: int
    classes: int

    def init(self, generator: torch.Generator) -> Weights:
        """Fresh weights: He-uniform convolutions, LeCun-uniform linear layer, zero biases, unit batch-norm scales."""

        def uniform(*shape: int, gain: float) -> Tensor:
            bound = gain / math.sqrt(math.prod(shape[1:]))
            return torch.empty(shape).uniform_(-bound, bound, generator=generator)

        params: list[Tensor] = []
        running: list[Tensor] = []
        inputs = self.channels
        for _ in range(_BLOCKS):
            params += [uniform(self.width, inputs, 3, 3, gain=math.sqrt(6)), torch.zeros(self.width)]
            params += [torch.ones(self.width), torch.zeros(self.width)]
            running += [torch.zeros(self.width), torch.ones(self.width)]
            inputs = self.width
        flat = self.width * (self.size[0] // 2**_BLOCKS) * (self.size[1] // 2**_BLOCKS)
        params += [uniform(self.classes, flat, gain=math.sqrt(3)), torch.zeros(self.classes)]
        for param in params:
            param.requires_grad_()
        return Weights(params, running)

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        """(n, classes). Training uses the batch's own statistics and updates the running ones."""
        # A plain average of the first ten batches, then exponential: a child may see a dozen batches in all.
        if training:
            weights.seen += 1
        momentum = max(0.1, 1 / max(1, weights.seen))
        h = x
        for block in range(_BLOCKS):
            kernel, bias, scale, shift = weights.params[4 * block : 4 * block + 4]
            mean, variance = weights.running[2 * block : 2 * block + 2]
            h = F.relu(F.conv2d(h, kernel, bias, padding=1))
            h = F.batch_norm(h, mean, variance, scale, shift, training=training, momentum=momentum)
            h = F.max_pool2d(h, 2)
        return F.linear(h.flatten(1), weights.params[-2], weights.params[-1])
