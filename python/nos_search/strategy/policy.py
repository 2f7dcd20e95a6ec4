"""Owns the controller's network: an LSTM that writes a string one token at a time.

Each token goes in through an embedding of its own (one row per position and token) and each position has its own
softmax over its own vocabulary, as in the paper and its patents. Weights start uniform in [-0.08, 0.08].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..space import Space, Tokens

_INIT = 0.08


class Policy(nn.Module):
    """p(tokens) over the strings of a space; masked tokens have probability 0."""

    def __init__(self, space: Space, *, hidden: int, embedding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        sizes = [len(position.tokens) for position in space.positions]
        # Row 0 starts a string; then one block of rows per position.
        self.offsets = [1 + sum(sizes[:k]) for k in range(len(sizes))]
        self.hidden = hidden
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
            self.embedding = nn.Embedding(1 + sum(sizes), embedding)
            self.cell = nn.LSTMCell(embedding, hidden)
            self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-_INIT, _INIT, generator=generator)

    def _masks(self, prefixes: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([self.space.mask(prefix) for prefix in prefixes])

    def _step(
        self, where: int, token: Tensor, state: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        state = self.cell(self.embedding(token), state)
        logits = self.heads[where](state[0]).masked_fill(~mask, float("-inf"))
        return torch.log_softmax(logits, dim=1), state

    def _start(self, n: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        zeros = torch.zeros(n, self.hidden)
        return torch.zeros(n, dtype=torch.long), (zeros, zeros)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> list[Tokens]:
        """n strings drawn token by token."""
        token, state = self._start(n)
        strings: list[list[int]] = [[] for _ in range(n)]
        for where, offset in enumerate(self.offsets):
            log_p, state = self._step(where, token, state, self._masks(strings))
            drawn = torch.multinomial(log_p.exp(), 1, generator=generator).squeeze(1)
            for string, index in zip(strings, drawn.tolist(), strict=True):
                string.append(index)
            token = drawn + offset
        return [tuple(string) for string in strings]

    def evaluate(self, strings: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Log-probability of each string, and the entropy of its live choices, both summed over positions; nats, (n,).

        A choice that does not change the rule is left out of the entropy: else a controller earns its entropy bonus
        with tokens that do nothing, while it writes one rule again and again.
        """
        token, state = self._start(len(strings))
        given = torch.tensor(strings)
        live = torch.tensor([self.space.live(string) for string in strings])
        log_prob = torch.zeros(len(strings))
        entropy = torch.zeros(len(strings))
        for where, offset in enumerate(self.offsets):
            log_p, state = self._step(where, token, state, self._masks([string[:where] for string in strings]))
            log_prob = log_prob + log_p.gather(1, given[:, where : where + 1]).squeeze(1)
            terms = log_p.exp() * log_p.clamp_min(-1e4)  # 0 * -inf counts as 0
            entropy = entropy - torch.where(live[:, where], terms.sum(1), torch.zeros(()))
            token = given[:, where] + offset
        return log_prob, entropy
