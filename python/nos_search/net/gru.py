"""Owns the recurrent networks of gated units (Cho et al. 2014): a language model, and an encoder-decoder for pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Draw, Net, Weights

_LAYER = 4  # tensors of one layer: input and recurrent matrices, their biases


def _draw_layers(draw: Draw, width: int, depth: int) -> None:
    for _ in range(depth):
        for _ in range(2):
            draw.uniform(3 * width, width)
        for _ in range(2):
            draw.zeros(3 * width)


def _gru(
    h: Tensor, start: Tensor, params: list[Tensor], depth: int, training: bool, unrolled: bool
) -> tuple[Tensor, Tensor]:
    """Returns the outputs (n, length, width) and the last state of each layer (depth, n, width). With `unrolled` it
    computes op by op, as vmap needs it."""
    if not unrolled:
        outputs: tuple[Tensor, Tensor] = torch.gru(h, start, params, True, depth, 0.0, training, False, True)
        return outputs
    last = []
    for layer in range(depth):
        matrix, recurrent, bias, recurrent_bias = params[_LAYER * layer : _LAYER * (layer + 1)]
        state, outs = start[layer], []
        for gates in F.linear(h, matrix, bias).unbind(-2):
            r, z, n = gates.chunk(3, -1)
            state_r, state_z, state_n = F.linear(state, recurrent, recurrent_bias).chunk(3, -1)
            z = torch.sigmoid(z + state_z)
            n = torch.tanh(n + torch.sigmoid(r + state_r) * state_n)
            state = n + z * (state - n)
            outs.append(state)
        h = torch.stack(outs, -2)
        last.append(state)
    return h, torch.stack(last)


@dataclass(frozen=True)
class GruModel(Net):
    """A language model, which maps (n, length) tokens to (n, length, classes). `width` counts its units and is the size
    of the embedding."""

    vocabulary: int
    width: int
    depth: int
    classes: int
    unrolled: bool = False

    def stackable(self) -> Net:
        return replace(self, unrolled=True)

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        draw.uniform(self.vocabulary, self.width, fan=1, gain=1.0)
        _draw_layers(draw, self.width, self.depth)
        draw.linear(self.width, self.classes)
        return draw.weights()

    def layers(self) -> list[tuple[str, int]]:
        deeper = [("gru", self.width)] * (self.depth - 1)
        return [("text_gru", self.width), *deeper, ("position_linear", self.classes)]

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        embedding, *layers, matrix, bias = weights.params
        h = F.embedding(x, embedding)
        h, _ = _gru(h, h.new_zeros(self.depth, len(x), self.width), layers, self.depth, training, self.unrolled)
        return F.linear(h, matrix, bias)


@dataclass(frozen=True)
class GruPair(Net):
    """An encoder-decoder with dot-product attention (Luong et al. 2015), which maps (n, source + length) to (n, length,
    classes). The decoder starts from the encoder's last state."""

    source: int
    source_vocabulary: int
    vocabulary: int
    width: int
    depth: int
    classes: int
    unrolled: bool = False

    def stackable(self) -> Net:
        return replace(self, unrolled=True)

    def init(self, generator: torch.Generator) -> Weights:
        draw = Draw(generator)
        for vocabulary in (self.source_vocabulary, self.vocabulary):
            draw.uniform(vocabulary, self.width, fan=1, gain=1.0)
            _draw_layers(draw, self.width, self.depth)
        draw.linear(2 * self.width, self.width)
        draw.linear(self.width, self.classes)
        return draw.weights()

    def logits(self, weights: Weights, x: Tensor, *, training: bool) -> Tensor:
        count = 1 + _LAYER * self.depth
        encoder, decoder, (mix, mix_bias, matrix, bias) = (
            weights.params[:count],
            weights.params[count : 2 * count],
            weights.params[2 * count :],
        )
        source, target = x[:, : self.source], x[:, self.source :]
        h = F.embedding(source, encoder[0])
        memory, last = _gru(
            h, h.new_zeros(self.depth, len(x), self.width), encoder[1:], self.depth, training, self.unrolled
        )
        h, _ = _gru(F.embedding(target, decoder[0]), last, decoder[1:], self.depth, training, self.unrolled)
        scores = (h @ memory.transpose(1, 2)).masked_fill((source == 0).unsqueeze(1), -1e9)
        context = torch.softmax(scores, -1) @ memory
        return F.linear(torch.tanh(F.linear(torch.cat([h, context], -1), mix, mix_bias)), matrix, bias)
