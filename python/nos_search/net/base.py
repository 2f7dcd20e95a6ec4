"""Owns what a child network is: plain functions of a flat list of tensors, because a rule updates a list of tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

InputKind = Literal["image", "pixels", "context", "text", "pair"]


@dataclass(frozen=True)
class Inputs:
    """This describes what a task feeds to its network.

    Of the kinds "image" and "pixels" x is (n, channels, *size) float32: the network answers once for an image, and for
    each of its numbers. Of the kinds "context" and "text" x is (n, length) int64 tokens below `vocabulary`: the network
    answers once for all of a context, and at each token of a text, where it sees position t and those before it. Of the
    kind "pair" x is (n, source + length) int64: the source sentence, whose tokens are below `source_vocabulary`, and
    then what the decoder reads; 0 pads both.
    """

    kind: InputKind
    channels: int = 0
    size: tuple[int, int] = (0, 0)
    vocabulary: int = 0
    length: int = 0
    source: int = 0
    source_vocabulary: int = 0


@dataclass
class Weights:
    """The weights of a network: the rule updates `params` in place, and `running` are statistics that are kept for
    evaluation. `seen` counts batches."""

    params: list[Tensor]
    running: list[Tensor] = field(default_factory=list)
    seen: int = 0

    @property
    def momentum(self) -> float:
        """Returns the weight of a new batch in the running statistics. The first ten batches are averaged plainly,
        later ones exponentially, because a child may see a dozen batches in all."""
        return max(0.1, 1 / max(1, self.seen))


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor, *, training: bool, momentum: float
) -> Tensor:
    """Returns torch.nn.functional.batch_norm of x, (n, channels, height, width); training updates mean and variance.

    On a GPU it does without cuDNN, which asks for the memory format of x, and torch.func.vmap does not know any but the
    plain one.
    """
    with torch.backends.cudnn.flags(enabled=False) if x.is_cuda else nullcontext():
        return F.batch_norm(x, mean, variance, scale, shift, training=training, momentum=momentum)


class Net(ABC):
    """A net is the shape of a network and holds no tensors. It draws every random number from the generator that is
    passed in."""

    @abstractmethod
    def init(self, generator: torch.Generator) -> Weights:
        """Returns fresh weights on the CPU; the parameters require gradients."""

    def stackable(self) -> Net:
        """Returns the same network in a form that torch.func.vmap can turn into a stack of many."""
        return self

    def layers(self) -> list[tuple[str, int]] | None:
        """Returns the network as names and numbers of `nos_ext._C.layer_table`, or None where the kernels of nos_ext do
        not have all that it needs. Its weights are then those of init(), in order."""
        return None

    @abstractmethod
    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        """Returns (n, classes), or (n, targets, classes) where a network answers at each token or pixel."""


class Draw:
    """This draws weights from a generator, in the order in which they are asked for."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self.params: list[Tensor] = []

    def uniform(self, *shape: int, gain: float = math.sqrt(3), fan: int | None = None) -> Tensor:
        """Draws uniformly within gain / sqrt(fan), where fan counts the inputs of one output. A gain of sqrt(3) is
        LeCun's, sqrt(6) is He's."""
        bound = gain / math.sqrt(fan or math.prod(shape[1:]))
        self.params.append(torch.empty(shape).uniform_(-bound, bound, generator=self._generator))
        return self.params[-1]

    def zeros(self, *shape: int) -> None:
        self.params.append(torch.zeros(shape))

    def ones(self, *shape: int) -> None:
        self.params.append(torch.ones(shape))

    def linear(self, inputs: int, outputs: int, *, gain: float = math.sqrt(3)) -> None:
        """Adds a matrix (outputs, inputs) and its bias of zeros."""
        self.uniform(outputs, inputs, gain=gain)
        self.zeros(outputs)

    def norm(self, width: int) -> None:
        """Adds the scale and the shift of a normalisation."""
        self.ones(width)
        self.zeros(width)

    def weights(self, running: list[Tensor] | None = None) -> Weights:
        for param in self.params:
            param.requires_grad_()
        return Weights(self.params, running or [])
