"""Owns SIZES, the lists of tensor shapes that the rules are run on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """Shapes of the parameters of one model, or of one big tensor."""

    name: str
    what: str
    shapes: tuple[Shape, ...]

    @property
    def tensors(self) -> int:
        return len(self.shapes)

    @property
    def elements(self) -> int:
        return sum(map(math.prod, self.shapes))


def _one(name: str) -> Size:
    n = int(float(name))
    return Size(name, f"one tensor of {n:,}", ((n,),))


# The child network of a search: three 3x3 convolutions and two linear layers (bench/loop.py trains it).
CONVNET: Final[tuple[Shape, ...]] = (
    *((32, 3, 3, 3), (32,)),
    *((32, 32, 3, 3), (32,)),
    *((32, 32, 3, 3), (32,)),
    *((56, 512), (56,)),
    *((10, 56), (10,)),
)

# He et al. 2016, table 1: blocks and width of the four stages; the last convolution of a block has 4 x width filters.
_RESNET50_STAGES: Final = ((3, 64), (4, 128), (6, 256), (3, 512))


def _resnet50() -> tuple[Shape, ...]:
    shapes: list[Shape] = []

    def convolution(out: int, inputs: int, kernel: int) -> None:
        shapes.extend([(out, inputs, kernel, kernel), (out,), (out,)])  # weights, then scale and shift of batch norm

    convolution(64, 3, 7)
    inputs = 64
    for blocks, width in _RESNET50_STAGES:
        for block in range(blocks):
            convolution(width, inputs, 1)
            convolution(width, width, 3)
            convolution(4 * width, width, 1)
            if block == 0:
                convolution(4 * width, inputs, 1)  # the shortcut
            inputs = 4 * width
    return (*shapes, (1000, 2048), (1000,))


_GPT2_BLOCK: Final[tuple[Shape, ...]] = (
    *((768,), (768,)),  # layer norm
    *((768, 2304), (2304,), (768, 768), (768,)),  # attention
    *((768,), (768,)),
    *((768, 3072), (3072,), (3072, 768), (768,)),  # feed-forward
)
_GPT2: Final = ((50257, 768), (1024, 768), *(_GPT2_BLOCK * 12), (768,), (768,))

SIZES: Final[Mapping[str, Size]] = {
    size.name: size
    for size in (
        _one("1e4"),
        _one("1e5"),
        _one("1e6"),
        _one("1e7"),
        _one("1e8"),
        Size("convnet", "a ConvNet of 10 tensors", CONVNET),
        Size("many", "1000 tensors of 256", ((256,),) * 1000),
        Size("resnet50", "ResNet-50, 161 tensors", _resnet50()),
        Size("gpt2", "GPT-2 small, 148 tensors", _GPT2),
    )
}
