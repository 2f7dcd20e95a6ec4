"""Owns the list of networks by name, which tasks they fit, and how a name such as `wrn-16-2` is read.

A new network is one file and one row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..bounds import check_count
from ..errors import UsageError, choose
from .autoencoder import Autoencoder
from .base import InputKind, Inputs, Net
from .convnet import ConvNet
from .gru import GruModel, GruPair
from .mlp import EMBEDDING, ContextMlp, Mlp
from .transformer import TransformerModel, TransformerPair
from .wrn import WideResNet


@dataclass(frozen=True)
class Spec:
    """A network by name. `depth` counts layers or blocks, or is a Wide ResNet's depth. `width` counts units or filters,
    or is the widening factor."""

    name: str
    depth: int
    width: int

    def __str__(self) -> str:
        return f"{self.name}-{self.depth}-{self.width}"


@dataclass(frozen=True)
class NetEntry:
    """A network in the list. `build` has a maker for each kind of input that it takes; `depth` and `width` are what it
    has where the user names none."""

    build: dict[InputKind, Callable[[Inputs, int, Spec], Net]]
    depth: int
    width: int
    doc: str


def _convnet(inputs: Inputs, classes: int, spec: Spec) -> Net:
    if min(inputs.size) < 2**spec.depth:
        raise UsageError(
            f"--net {spec}: {spec.depth} halvings leave nothing of {inputs.size[0]}x{inputs.size[1]} pixels"
        )
    return ConvNet(inputs.channels, inputs.size, spec.width, classes, spec.depth)


def _wrn(inputs: Inputs, classes: int, spec: Spec) -> Net:
    if spec.depth < 10 or (spec.depth - 4) % 6:
        raise UsageError(f"--net {spec}: the depth of a Wide ResNet is 6n + 4, such as 10, 16 or 28")
    return WideResNet(inputs.channels, spec.width, spec.depth, classes)


def _transformer(inputs: Inputs, classes: int, spec: Spec) -> Net:
    if spec.width % 2 or (spec.width > 32 and spec.width % 32):
        raise UsageError(f"--net {spec}: the width must be even, and a multiple of 32 above 32")
    if inputs.kind == "text":
        return TransformerModel(inputs.vocabulary, spec.width, spec.depth, classes)
    return TransformerPair(inputs.source, inputs.source_vocabulary, inputs.vocabulary, spec.width, spec.depth, classes)


NETS: dict[str, NetEntry] = {
    "convnet": NetEntry({"image": _convnet}, 2, 32, "the paper's child: conv, ReLU, batch norm, pooling; 2 blocks"),
    "wrn": NetEntry({"image": _wrn}, 16, 2, "Wide ResNet of depth 6n + 4 and a widening factor"),
    "mlp": NetEntry(
        {
            "image": lambda i, c, s: Mlp(i.channels * math.prod(i.size), s.width, s.depth, c),
            "context": lambda i, c, s: ContextMlp(i.vocabulary, Mlp(i.length * EMBEDDING, s.width, s.depth, c)),
        },
        2,
        128,
        f"hidden layers of ReLU units; tokens are embedded in {EMBEDDING} dimensions",
    ),
    "gru": NetEntry(
        {
            "text": lambda i, c, s: GruModel(i.vocabulary, s.width, s.depth, c),
            "pair": lambda i, c, s: GruPair(i.source, i.source_vocabulary, i.vocabulary, s.width, s.depth, c),
        },
        1,
        96,
        "gated recurrent units; an encoder-decoder with attention for pairs",
    ),
    "transformer": NetEntry(
        {"text": _transformer, "pair": _transformer}, 2, 64, "pre-norm transformer without dropout"
    ),
    "autoencoder": NetEntry(
        {"pixels": lambda i, c, s: Autoencoder(i.channels * math.prod(i.size), s.width, s.depth, c)},
        1,
        16,
        "hidden layers of ReLU units around a code of a few numbers",
    ),
}


def fitting(kind: InputKind) -> tuple[str, ...]:
    """Returns the names of the networks that take such inputs."""
    return tuple(name for name, entry in NETS.items() if kind in entry.build)


def parse(text: str, kind: InputKind) -> Spec:
    """Reads NAME[-DEPTH[-WIDTH]]. Raises UsageError for a name that does not fit inputs of this kind, or a bad
    number."""
    name, *numbers = text.split("-")
    if name not in fitting(kind):
        raise choose("--net", name, fitting(kind))
    if len(numbers) > 2 or not all(number.isdecimal() and len(number) < 20 and int(number) >= 1 for number in numbers):
        raise UsageError(f"--net {text[:60]!r} is not NAME[-DEPTH[-WIDTH]], for example {name}-{NETS[name].depth}")
    depth, width = [int(number) for number in numbers] + [NETS[name].depth, NETS[name].width][len(numbers) :]
    check_count("--net depth", depth)
    check_count("--net width", width)
    return Spec(name, depth, width)


def build(spec: Spec, inputs: Inputs, classes: int) -> Net:
    return NETS[spec.name].build[inputs.kind](inputs, classes, spec)
