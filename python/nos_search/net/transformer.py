"""Owns the transformers (Vaswani et al. 2017): a language model and an encoder-decoder, pre-norm and without dropout.

Positions are sinusoidal, the feed-forward layer is four times as wide, and a head has 32 units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights

_HEAD = 32
_HIDDEN = 4


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Returns (length, width) sines and cosines of geometric wavelengths from 2 pi to 10000 * 2 pi."""
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=like.device).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(like.dtype)


def _draw_attention(draw: Draw, width: int) -> None:
    draw.norm(width)
    for _ in range(4):
        draw.linear(width, width)


def _draw_feed_forward(draw: Draw, width: int) -> None:
    draw.norm(width)
    draw.linear(width, _HIDDEN * width, gain=math.sqrt(6))
    draw.linear(_HIDDEN * width, width)


def _norm(h: Tensor, params: Iterator[Tensor]) -> Tensor:
    scale, shift = next(params), next(params)
    return F.layer_norm(h, h.shape[-1:], scale, shift)


def _linear(h: Tensor, params: Iterator[Tensor]) -> Tensor:
    return F.linear(h, next(params), next(params))


def _attend(h: Tensor, params: Iterator[Tensor], mask: Tensor, memory: Tensor | None = None) -> Tensor:
    """Returns h plus the attention of its norm to itself, or to `memory`. `mask` is True where it may look, (...,
    queries, keys)."""
    query = _norm(h, params)
    other = query if memory is None else memory
    heads = max(1, h.shape[-1] // _HEAD)

    def split(z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:-1], heads, -1).transpose(-3, -2)

    q, k, v = split(_linear(query, params)), split(_linear(other, params)), split(_linear(other, params))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -1e9)
    mixed = (torch.softmax(scores, -1) @ v).transpose(-3, -2).flatten(-2)
    return h + _linear(mixed, params)


def _feed_forward(h: Tensor, params: Iterator[Tensor]) -> Tensor:
    return h + _linear(F.relu(_linear(_norm(h, params), params)), params)


def _causal(length: int, like: Tensor) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=like.device).tril()


@dataclass(frozen=True)
class TransformerModel(Net):
    """A causal language model of `depth` layers, which maps (n, length) tokens to (n, length, classes)."""

    vocabulary: int
    width: int
    depth: int
    classes: int

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        draw.uniform(self.vocabulary, self.width, fan=1, gain=1.0)
        for _ in range(self.depth):
            _draw_attention(draw, self.width)
            _draw_feed_forward(draw, self.width)
        draw.norm(self.width)
        draw.linear(self.width, self.classes)
        return draw.weights()

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        params = iter(weights.params)
        h = F.embedding(x, next(params))
        h = h + positions(x.shape[-1], self.width, h)
        mask = _causal(x.shape[-1], h)
        for _ in range(self.depth):
            h = _feed_forward(_attend(h, params, mask), params)
        return _linear(_norm(h, params), params)


@dataclass(frozen=True)
class TransformerPair(Net):
    """An encoder-decoder with `depth` layers on each side, which maps (n, source + length) to (n, length, classes)."""

    source: int
    source_vocabulary: int
    vocabulary: int
    width: int
    depth: int
    classes: int

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        for vocabulary in (self.source_vocabulary, self.vocabulary):
            draw.uniform(vocabulary, self.width, fan=1, gain=1.0)
        for _ in range(self.depth):
            _draw_attention(draw, self.width)
            _draw_feed_forward(draw, self.width)
        draw.norm(self.width)
        for _ in range(self.depth):
            _draw_attention(draw, self.width)
            _draw_attention(draw, self.width)
            _draw_feed_forward(draw, self.width)
        draw.norm(self.width)
        draw.linear(self.width, self.classes)
        return draw.weights()

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        params = iter(weights.params)
        source, target = x[:, : self.source], x[:, self.source :]
        memory, h = F.embedding(source, next(params)), F.embedding(target, next(params))
        memory = memory + positions(memory.shape[-2], self.width, memory)
        h = h + positions(h.shape[-2], self.width, h)
        seen = (source != 0)[:, None, None, :]
        for _ in range(self.depth):
            memory = _feed_forward(_attend(memory, params, seen), params)
        memory = _norm(memory, params)
        mask = _causal(h.shape[-2], h)
        for _ in range(self.depth):
            h = _attend(_attend(h, params, mask), params, seen, memory)
            h = _feed_forward(h, params)
        return _linear(_norm(h, params), params)
