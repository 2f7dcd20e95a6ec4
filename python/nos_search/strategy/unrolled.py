"""Owns the controller's network without autograd: it draws strings, and its gradient is worked out by hand.

The network is small, and most of the time of torch's operations on it goes into calling them. So products are torch's,
whose number of threads the caller sets, and all else is NumPy's, whose calls cost a third; both work on the same
memory. `Policy` computes the same distributions by torch alone, and the tests hold one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..space import Tokens
from .policy import Policy

_Floats = NDArray[np.float32]
_HALF = np.float32(0.5)


def _pair(*shape: int) -> tuple[Tensor, _Floats]:
    """Returns memory as torch and as NumPy see it. It holds zeros."""
    tensor = torch.zeros(shape)
    return tensor, tensor.numpy()


class Unrolled:
    """The network of a policy, unrolled over the positions of n strings. Arrays are (L, n, ...): position, then string.

    `strings()` says which strings it is about, and `forward()` computes, at the policy's present weights, `log_p`
    (L, n, V), the log-probabilities of every token after each string's own prefix, -1e30 where it is masked, and `p`,
    the probabilities. `backward()` gives the gradient of what follows from them. `live` (L, n) is 1 where the rule
    depends on the token.
    """

    def __init__(self, policy: Policy, n: int) -> None:
        self.policy, self.n = policy, n
        length, hidden, widest = len(policy.sizes), policy.hidden, policy.widest
        self._weights = [weight.detach() for weight in policy.parameters()]
        self._inputs = torch.zeros(length * n, self._weights[0].shape[1])  # rows of the embedding
        self._gates, self._gates_np = _pair(length, n, 4 * hidden)  # i, f, o, then what they let in
        self._h, self._h_np = _pair(length + 1, n, hidden)
        self._c = np.zeros((length + 1, n, hidden), np.float32)
        self._tanh_c = np.zeros((length, n, hidden), np.float32)
        self._part, self._by_c = np.zeros((n, hidden), np.float32), np.zeros((n, hidden), np.float32)
        self._by_gates, self._by_gates_np = _pair(length, n, 4 * hidden)
        self._by_h, self._by_h_np = _pair(length, n, hidden)
        self._parts = [self._gates_np[:, :, k * hidden : (k + 1) * hidden] for k in range(4)]
        self._logits, self.log_p = _pair(length, n, widest)
        self.p = np.zeros((length, n, widest), np.float32)
        self._rows = torch.zeros(length, n, dtype=torch.int64)  # of the embedding, 0 before the first token
        self._tokens = np.zeros((length, n, 1), np.int64)
        self._masked = np.zeros((length, n, widest), np.float32)  # NEVER where a token may not stand, and else 0
        self.live = np.zeros((length, n), np.float32)
        # Views of each position, made once: to make one costs as much as to work on it.
        self._cells = [
            (
                self._gates[k],
                self._h[k],
                self._gates_np[k],
                self._gates_np[k, :, : 3 * hidden],
                *(part[k] for part in self._parts),
                self._c[k],
                self._c[k + 1],
                self._tanh_c[k],
                self._h_np[k + 1],
            )
            for k in range(length)
        ]
        # The logistic function is (tanh(x / 2) + 1) / 2: so one call serves all four gates, and nothing overflows.
        self._scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), hidden)

    # --- forward ---------------------------------------------------------------------------------------------------

    def _cell(self, where: int) -> None:
        """Makes one LSTM step from the token's part of the gates."""
        product, h, gates, logistic, i, f, o, g, before, c, tanh_c, after = self._cells[where]
        product.addmm_(h, self._weights[2])
        np.multiply(gates, self._scale, out=gates)
        np.tanh(gates, out=gates)
        np.multiply(logistic, _HALF, out=logistic)
        np.add(logistic, _HALF, out=logistic)
        np.multiply(f, before, out=c)
        np.multiply(i, g, out=self._part)
        np.add(c, self._part, out=c)
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=after)

    @staticmethod
    def _softmax(log_p: _Floats, p: _Floats) -> None:
        """Makes log-probabilities of logits, in place, and probabilities."""
        np.subtract(log_p, np.maximum.reduce(log_p, axis=-1, keepdims=True), out=log_p)
        np.exp(log_p, out=p)
        total = np.add.reduce(p, axis=-1, keepdims=True)
        np.divide(p, total, out=p)
        np.subtract(log_p, np.log(total), out=log_p)

    def strings(self, strings: Sequence[Tokens]) -> None:
        """Takes n strings."""
        policy = self.policy
        tokens = np.array(strings, np.int64).T
        self._tokens[:, :, 0] = tokens
        self._rows[1:] = torch.from_numpy(tokens[:-1]) + policy.offsets[:-1, None]
        rows = policy.mask_rows(strings).T
        policy.penalties.take(rows, axis=0, out=self._masked)
        self.live[...] = np.array([policy.space.live(string) for string in strings], np.float32).T

    @torch.inference_mode()
    def forward(self) -> None:
        embedding, input_weight, _, bias, head_weight, head_bias = self._weights
        torch.index_select(embedding, 0, self._rows.view(-1), out=self._inputs)
        torch.addmm(bias, self._inputs, input_weight, out=self._gates.view(len(self._inputs), -1))
        for where in range(len(self._rows)):
            self._cell(where)
        torch.baddbmm(head_bias, self._h[1:], head_weight, out=self._logits)
        np.add(self.log_p, self._masked, out=self.log_p)
        self._softmax(self.log_p, self.p)

    def log_prob(self) -> _Floats:
        """Returns the (n,) log-probabilities of the strings themselves."""
        chosen: _Floats = np.take_along_axis(self.log_p, self._tokens, 2)[:, :, 0].sum(axis=0)
        return chosen

    def entropies(self) -> _Floats:
        """Returns (L, n) nats, those of choices that do not change the rule among them. See Policy.entropy."""
        return np.asarray(-(self.p * self.log_p).sum(axis=2))

    @torch.inference_mode()
    def sample(self, generator: torch.Generator) -> tuple[list[Tokens], list[float]]:
        """Draws n strings token by token, and returns them with their log-probabilities in nats."""
        embedding, input_weight, _, bias, head_weight, head_bias = self._weights
        policy, length = self.policy, len(self._rows)
        table = torch.addmm(bias, embedding, input_weight)
        # Float32 numbers are at most 1 - 2^-24, so a draw in float64 stays below the last sum.
        draws = torch.rand(length, self.n, 1, generator=generator).numpy().astype(np.float64)
        strings: list[list[int]] = [[] for _ in range(self.n)]
        total, rows = np.zeros(self.n, np.float64), torch.zeros(self.n, dtype=torch.int64)
        every, offsets = np.arange(self.n), policy.offsets.tolist()
        for where in range(length):
            torch.index_select(table, 0, rows, out=self._gates[where])
            self._cell(where)
            log_p, p = self.log_p[where], self.p[where]
            torch.addmm(head_bias[where], self._h[where + 1], head_weight[where], out=self._logits[where])
            masks = [policy.mask_row(string) for string in strings]  # before `penalties`, which grow
            np.add(log_p, policy.penalties[masks], out=log_p)
            self._softmax(log_p, p)
            sums = np.add.accumulate(p, axis=1, dtype=np.float64)
            drawn = np.add.reduce(sums <= draws[where] * sums[:, -1:], axis=1, dtype=np.int64)
            total += log_p[every, drawn]
            rows = torch.from_numpy(drawn + offsets[where])
            for string, token in zip(strings, drawn.tolist(), strict=True):
                string.append(token)
        return [tuple(string) for string in strings], total.tolist()

    # --- backward --------------------------------------------------------------------------------------------------

    def slope(self, by_log_prob: _Floats, by_entropy: float) -> Tensor:
        """Returns (L, n, V): the gradient, by the logits, of a number whose gradient by `log_prob` is given, (n,), and
        which has `by_entropy` times the mean of the strings' live entropies added to it."""
        entropy = self.entropies()[:, :, None]
        share = np.float32(by_entropy / self.n) * self.live[:, :, None]
        out = -self.p * (by_log_prob[:, None] + share * (self.log_p + entropy))
        chosen = np.take_along_axis(out, self._tokens, 2) + by_log_prob[:, None]
        np.put_along_axis(out, self._tokens, chosen, 2)
        return torch.from_numpy(out)

    @torch.inference_mode()
    def backward(self, slope: Tensor, out: Sequence[Tensor]) -> None:
        """Writes the gradient by the policy's parameters, in their order, to `out`. `slope` is that by the logits."""
        _, input_weight, state_weight, _, head_weight, _ = self._weights
        hidden, n, length = self.policy.hidden, self.n, len(self._rows)
        by_embedding, by_input, by_state, by_bias, by_head, by_head_bias = out
        torch.bmm(self._h[1:].transpose(1, 2), slope, out=by_head)
        torch.sum(slope, 1, keepdim=True, out=by_head_bias)
        by_h, by_gates, by_c = self._by_h, self._by_gates, self._by_c
        torch.bmm(slope, head_weight.transpose(1, 2), out=by_h)
        # How each gate before its function moves c (i, f, g) or h (o), and how c moves h.
        i, f, o, g = self._parts
        parts = self._by_gates_np.reshape(length, n, 4, hidden)
        np.multiply(g, i * (1 - i), out=parts[:, :, 0])
        np.multiply(self._c[:-1], f * (1 - f), out=parts[:, :, 1])
        np.multiply(self._tanh_c, o * (1 - o), out=parts[:, :, 2])
        np.multiply(i, 1 - g * g, out=parts[:, :, 3])
        through = o * (1 - self._tanh_c * self._tanh_c)
        back = state_weight.T
        by_c.fill(0)
        for where in reversed(range(length)):
            if where + 1 < length:
                by_h[where].addmm_(by_gates[where + 1], back)
            of_h, part = self._by_h_np[where], parts[where]
            np.multiply(of_h, through[where], out=self._part)
            np.add(by_c, self._part, out=by_c)
            part[:, 2] *= of_h
            part[:, :2] *= by_c[:, None]
            part[:, 3] *= by_c
            by_c *= f[where]
        flat = by_gates.view(length * n, 4 * hidden)
        torch.mm(self._h[:-1].view(length * n, hidden).T, flat, out=by_state)
        torch.sum(flat, 0, out=by_bias)
        torch.mm(self._inputs.T, flat, out=by_input)
        by_embedding.zero_().index_add_(0, self._rows.view(-1), flat @ input_weight.T)
