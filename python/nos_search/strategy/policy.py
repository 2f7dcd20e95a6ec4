"""Owns the controller's network, an LSTM that writes a string one token at a time.

Each token goes in through an embedding of its own (one row per position and token) and each position has its own
softmax over its own vocabulary, as in the paper and its patents. Weights start uniform in [-0.08, 0.08].
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..space import SearchSpace, Tokens

_INIT = 0.08
_NEVER = -1e30  # logit of a masked token: its probability is 0, and no derivative is NaN


@dataclass(frozen=True)
class Batch:
    """Strings that are ready for the network: their tokens are (n, L), masks (n, L, V) and live (n, L)."""

    tokens: Tensor
    masks: Tensor
    live: Tensor


class Policy(nn.Module):
    """A policy is p(tokens) over the strings of a space; masked tokens have probability 0."""

    def __init__(self, space: SearchSpace, *, hidden: int, embedding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.sizes = [len(position.tokens) for position in space.positions]
        self.widest = max(self.sizes)
        self.hidden = hidden
        # Row 0 of the embedding begins a string. After it comes one block of rows for each position.
        self.offsets = torch.tensor([1 + sum(self.sizes[:k]) for k in range(len(self.sizes))])

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-_INIT, _INIT, generator=generator))

        self.embedding = uniform(1 + sum(self.sizes), embedding)
        self.input_weight = uniform(embedding, 4 * hidden)
        self.state_weight = uniform(hidden, 4 * hidden)
        self.bias = uniform(4 * hidden)
        self.head_weight = uniform(len(self.sizes), hidden, self.widest)
        self.head_bias = uniform(len(self.sizes), 1, self.widest)
        self._rows: dict[Hashable, Tensor] = {}  # mask rows by what they depend on

    # --- masks -----------------------------------------------------------------------------------------------------

    def _mask(self, prefix: Sequence[int]) -> Tensor:
        key = self.space.mask_key(prefix)
        row = self._rows.get(key)
        if row is None:
            allowed = self.space.mask(prefix)
            row = self._rows[key] = torch.tensor(allowed + [False] * (self.widest - len(allowed)))
        return row

    def batch(self, strings: Sequence[Tokens]) -> Batch:
        length = len(self.sizes)
        masks = [self._mask(string[:where]) for string in strings for where in range(length)]
        return Batch(
            torch.tensor(strings),
            torch.stack(masks).view(len(strings), length, self.widest),
            torch.tensor([self.space.live(string) for string in strings]),
        )

    # --- the network -----------------------------------------------------------------------------------------------

    def _cell(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Makes one LSTM step. `x` is the token's part of the four gates, (n, 4 hidden)."""
        gates = torch.addmm(x, h, self.state_weight)
        i, f, o = torch.sigmoid(gates[:, : 3 * self.hidden]).chunk(3, 1)
        c = f * c + i * torch.tanh(gates[:, 3 * self.hidden :])
        return o * torch.tanh(c), c

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> tuple[list[Tokens], list[float]]:
        """Draws n strings token by token, and returns them with their log-probabilities in nats."""
        h = c = self.bias.new_zeros(n, self.hidden)
        table = torch.addmm(self.bias, self.embedding, self.input_weight)
        row = torch.zeros(n, dtype=torch.long)
        strings: list[list[int]] = [[] for _ in range(n)]
        total = torch.zeros(n)
        for where in range(len(self.sizes)):
            h, c = self._cell(table[row], h, c)
            logits = torch.addmm(self.head_bias[where], h, self.head_weight[where])
            mask = torch.stack([self._mask(string) for string in strings])
            log_p = torch.log_softmax(logits.masked_fill(~mask, _NEVER), 1)
            drawn = torch.multinomial(log_p.exp(), 1, generator=generator)
            total += log_p.gather(1, drawn).squeeze(1)
            row = drawn.squeeze(1) + self.offsets[where]
            for string, index in zip(strings, drawn.squeeze(1).tolist(), strict=True):
                string.append(index)
        return [tuple(string) for string in strings], total.tolist()

    def distributions(self, batch: Batch) -> Tensor:
        """Returns (n, L, V) log-probabilities of every token after each string's own prefix; they are -1e30 where it is
        masked."""
        n, length = batch.tokens.shape
        rows = torch.cat([torch.zeros(n, 1, dtype=torch.long), (batch.tokens + self.offsets)[:, :-1]], 1)
        x = torch.addmm(self.bias, self.embedding, self.input_weight)[rows]
        h = c = self.bias.new_zeros(n, self.hidden)
        states = []
        for where in range(length):
            h, c = self._cell(x[:, where], h, c)
            states.append(h)
        logits = torch.baddbmm(self.head_bias, torch.stack(states), self.head_weight).transpose(0, 1)
        return torch.log_softmax(logits.masked_fill(~batch.masks, _NEVER), 2)

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
