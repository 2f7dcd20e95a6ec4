"""Owns the controller's network, an LSTM that writes a string one token at a time: its weights, its masks, and its
distributions as torch computes them.

Each token goes in through an embedding of its own (one row per position and token) and each position has its own
softmax over its own vocabulary, as in the paper and its patents. Weights start uniform in [-0.08, 0.08].

TRPO, which needs second derivatives, differentiates this network by autograd. Everything else goes through
unrolled.py, which computes the same numbers several times as fast.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..space import SearchSpace, Tokens

_INIT = 0.08
NEVER = -1e30  # logit of a masked token: probability 0, and no NaN in any derivative


@dataclass(frozen=True)
class Batch:
    """Strings that are ready for the network: their tokens are (n, L), masks (n, L, V) and live (n, L)."""

    tokens: Tensor
    masks: Tensor
    live: Tensor


class Policy(nn.Module):
    """A policy is p(tokens) over the strings of a space; masked tokens have probability 0.

    All weights lie in `flat`, one after the other, in the order of parameters().
    """

    def __init__(self, space: SearchSpace, *, hidden: int, embedding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.sizes = [len(position.tokens) for position in space.positions]
        self.widest = max(self.sizes)
        self.hidden = hidden
        # Row 0 of the embedding begins a string. After it comes one block of rows for each position.
        self.offsets = torch.tensor([1 + sum(self.sizes[:k]) for k in range(len(self.sizes))])
        shapes = (
            (1 + sum(self.sizes), embedding),
            (embedding, 4 * hidden),
            (hidden, 4 * hidden),
            (4 * hidden,),
            (len(self.sizes), hidden, self.widest),
            (len(self.sizes), 1, self.widest),
        )
        self._shapes = [torch.Size(shape) for shape in shapes]
        self.flat = torch.empty(sum(shape.numel() for shape in self._shapes))
        weights = [nn.Parameter(view) for view in self.views(self.flat)]
        for weight in weights:
            weight.data.uniform_(-_INIT, _INIT, generator=generator)
        self.embedding, self.input_weight, self.state_weight, self.bias, self.head_weight, self.head_bias = weights
        self._rows: dict[Hashable, int] = {}  # by what a mask depends on: its row of `penalties`
        # What a mask adds to the logits: NEVER for each token that may not stand, and else 0.
        self.penalties: NDArray[np.float32] = np.empty((0, self.widest), np.float32)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Returns the parts of a vector as long as `flat` that belong to each of parameters(), in their shapes."""
        ends = list(accumulate(shape.numel() for shape in self._shapes))
        return [flat[end - shape.numel() : end].view(shape) for end, shape in zip(ends, self._shapes, strict=True)]

    def gate_weight(self, flat: Tensor) -> Tensor:
        """Returns the part of such a vector that is input_weight, below it state_weight and below that the bias: what a
        step multiplies the token's embedding, the state and a 1 with."""
        start = self._shapes[0].numel()
        rows = self._shapes[1][0] + self._shapes[2][0] + 1
        return flat[start : start + rows * 4 * self.hidden].view(rows, 4 * self.hidden)

    # --- masks -----------------------------------------------------------------------------------------------------

    def mask_row(self, prefix: Sequence[int]) -> int:
        """Returns the row of `penalties` for the token that follows a prefix."""
        key = self.space.mask_key(prefix)
        row = self._rows.get(key)
        if row is None:
            mask = self.space.mask(prefix)
            allowed = np.array(mask + [False] * (self.widest - len(mask)))
            row = self._rows[key] = len(self.penalties)
            self.penalties = np.vstack([self.penalties, np.where(allowed, np.float32(0), np.float32(NEVER))])
        return row

    def mask_rows(self, strings: Sequence[Tokens]) -> NDArray[np.int64]:
        """Returns (n, L) rows of `penalties`: one for each string's prefix before each position."""
        where = range(len(self.sizes))
        return np.array([[self.mask_row(string[:k]) for k in where] for string in strings], np.int64)

    def batch(self, strings: Sequence[Tokens]) -> Batch:
        rows = self.mask_rows(strings)  # before `penalties`, which grow by those that are new
        return Batch(
            torch.tensor(strings),
            torch.from_numpy(self.penalties[rows] == 0),
            torch.tensor([self.space.live(string) for string in strings]),
        )

    # --- the network -----------------------------------------------------------------------------------------------

    def _cell(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Makes one LSTM step. `x` is the token's part of the four gates, (n, 4 hidden)."""
        gates = torch.addmm(x, h, self.state_weight)
        i, f, o = torch.sigmoid(gates[:, : 3 * self.hidden]).chunk(3, 1)
        c = f * c + i * torch.tanh(gates[:, 3 * self.hidden :])
        return o * torch.tanh(c), c

    def distributions(self, batch: Batch) -> Tensor:
        """Returns (n, L, V) log-probabilities of every token after each string's own prefix; they are -1e30 where it is
        masked."""
        n, length = batch.tokens.shape
        rows = torch.cat([torch.zeros(n, 1, dtype=torch.long), (batch.tokens + self.offsets)[:, :-1]], 1)
        # Not by an index, whose gradient has other last digits in every run with several threads.
        x = F.embedding(rows, torch.addmm(self.bias, self.embedding, self.input_weight))
        h = c = self.bias.new_zeros(n, self.hidden)
        states = []
        for where in range(length):
            h, c = self._cell(x[:, where], h, c)
            states.append(h)
        logits = torch.baddbmm(self.head_bias, torch.stack(states), self.head_weight).transpose(0, 1)
        return torch.log_softmax(logits.masked_fill(~batch.masks, NEVER), 2)

    @staticmethod
    def log_prob(log_p: Tensor, batch: Batch) -> Tensor:
        """Returns the (n,) log-probabilities of the strings themselves, from `distributions`."""
        return log_p.gather(2, batch.tokens.unsqueeze(2)).squeeze(2).sum(1)

    @staticmethod
    def entropy(log_p: Tensor, batch: Batch) -> Tensor:
        """Returns (n,) nats, summed over live positions.

        A choice that does not change the rule is left out: else a controller earns its entropy bonus with tokens that
        do nothing, while it writes one rule again and again.
        """
        return -(((log_p.exp() * log_p).sum(2)) * batch.live).sum(1)
