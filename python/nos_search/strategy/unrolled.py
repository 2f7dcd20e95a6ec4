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
_LEAST_LOG = -100.0  # of a draw that rounding has made 0; so far from it that no other is touched


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
        width = policy.embedding.shape[1]
        self._embedding, self._bias, self._head_weight, self._head_bias = (
            weight.detach() for weight in (policy.embedding, policy.bias, policy.head_weight, policy.head_bias)
        )
        self._weight = policy.gate_weight(policy.flat)
        self._gradient = torch.zeros_like(policy.flat)
        self._by_weights, self._by_gate_weight = policy.views(self._gradient), policy.gate_weight(self._gradient)
        # What a step reads: the token's row of the embedding, and the state before it.
        self._reads, reads_np = _pair(length + 1, n, width + hidden)
        self._inputs = self._reads[:length, :, :width]
        self._states, states_np = self._reads[1:, :, width:], reads_np[1:, :, width:]
        self._gates, gates_np = _pair(length, n, 4 * hidden)  # i, f, o, then what they let in
        self._parts = [gates_np[:, :, k * hidden : (k + 1) * hidden] for k in range(4)]
        self._c = np.zeros((length + 1, n, hidden), np.float32)
        self._tanh_c = np.zeros((length, n, hidden), np.float32)
        self._part, self._by_c = np.zeros((n, hidden), np.float32), np.zeros((n, hidden), np.float32)
        self._by_gates, self._by_gates_np = _pair(length, n, 4 * hidden)
        self._by_reads, by_reads_np = _pair(length, n, width + hidden)
        self._by_h, self._by_h_np = _pair(length, n, hidden)
        self._through = np.zeros((length, n, hidden), np.float32)
        self._logits, self.log_p = _pair(length, n, widest)
        self.p = np.zeros((length, n, widest), np.float32)
        self._rows = torch.zeros(length, n, dtype=torch.int64)  # of the embedding, 0 before the first token
        self._chosen = np.zeros((length, n), np.int64)  # where the strings' own tokens are in a flat (L, n, V)
        self._starts = (np.arange(length * n) * widest).reshape(length, n)
        self._masked = np.zeros((length, n, widest), np.float32)  # NEVER where a token may not stand, and else 0
        self.live = np.zeros((length, n), np.float32)
        # Views of each position, made once: to make one costs as much as to work on it.
        self._cells = [
            (
                self._reads[k],
                self._gates[k],
                gates_np[k],
                gates_np[k, :, : 3 * hidden],
                *(part[k] for part in self._parts),
                self._c[k],
                self._c[k + 1],
                self._tanh_c[k],
                states_np[k],
            )
            for k in range(length)
        ]
        by_parts = self._by_gates_np.reshape(length, n, 4, hidden)
        self._back = [
            (
                self._by_gates[k],
                self._by_reads[k],
                by_reads_np[k, :, width:],
                self._by_h_np[k],
                self._through[k],
                self._parts[1][k],
                by_parts[k, :, :2],
                by_parts[k, :, 2],
                by_parts[k, :, 3],
            )
            for k in range(length)
        ]
        # The logistic function is (tanh(x / 2) + 1) / 2: so one call serves all four gates, and nothing overflows.
        self._scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), hidden)

    # --- forward ---------------------------------------------------------------------------------------------------

    def _cell(self, where: int) -> None:
        """Makes one LSTM step."""
        reads, product, gates, logistic, i, f, o, g, before, c, tanh_c, after = self._cells[where]
        torch.addmm(self._bias, reads, self._weight, out=product)
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
        np.add(self._starts, tokens, out=self._chosen)
        self._rows[1:] = torch.from_numpy(tokens[:-1]) + policy.offsets[:-1, None]
        rows = policy.mask_rows(strings).T
        policy.penalties.take(rows, axis=0, out=self._masked)
        self.live[...] = np.array([policy.space.live(string) for string in strings], np.float32).T

    def forward(self) -> None:
        self._inputs.copy_(self._embedding[self._rows])
        for where in range(len(self._rows)):
            self._cell(where)
        torch.baddbmm(self._head_bias, self._states, self._head_weight, out=self._logits)
        np.add(self.log_p, self._masked, out=self.log_p)
        self._softmax(self.log_p, self.p)

    def log_prob(self) -> _Floats:
        """Returns the (n,) log-probabilities of the strings themselves."""
        return np.asarray(self.log_p.reshape(-1)[self._chosen].sum(axis=0))

    def entropies(self) -> _Floats:
        """Returns (L, n) nats, those of choices that do not change the rule among them. See Policy.entropy."""
        return np.asarray(-(self.p * self.log_p).sum(axis=2))

    def sample(self, generator: torch.Generator) -> tuple[list[Tokens], list[float]]:
        """Draws n strings token by token, and returns them with their log-probabilities in nats."""
        policy, length = self.policy, len(self._rows)
        # The largest of logits plus draws of the Gumbel distribution is a draw from their softmax.
        noise = -torch.empty(self._logits.shape).exponential_(generator=generator).log_().clamp_(min=_LEAST_LOG)
        gumbel, offsets = noise.numpy(), policy.offsets.tolist()
        strings: list[list[int]] = [[] for _ in range(self.n)]
        rows = torch.zeros(self.n, dtype=torch.int64)
        for where in range(length):
            self._inputs[where].copy_(self._embedding[rows])
            self._cell(where)
            logits = self.log_p[where]
            torch.addmm(self._head_bias[where], self._states[where], self._head_weight[where], out=self._logits[where])
            masks = [policy.mask_row(string) for string in strings]  # before `penalties`, which grow
            np.add(logits, policy.penalties[masks], out=logits)
            drawn = np.add(logits, gumbel[where], out=gumbel[where]).argmax(axis=1)
            np.add(self._starts[where], drawn, out=self._chosen[where])
            rows = torch.from_numpy(drawn + offsets[where])
            for string, token in zip(strings, drawn.tolist(), strict=True):
                string.append(token)
        self._softmax(self.log_p, self.p)
        return [tuple(string) for string in strings], self.log_prob().tolist()

    # --- backward --------------------------------------------------------------------------------------------------

    def slope(self, by_log_prob: _Floats, by_entropy: float) -> Tensor:
        """Returns (L, n, V): the gradient, by the logits, of a number whose gradient by `log_prob` is given, (n,), and
        which has `by_entropy` times the mean of the strings' live entropies added to it."""
        entropy = self.entropies()[:, :, None]
        share = np.float32(by_entropy / self.n) * self.live[:, :, None]
        out = -self.p * (by_log_prob[:, None] + share * (self.log_p + entropy))
        out.reshape(-1)[self._chosen] += by_log_prob
        return torch.from_numpy(out)

    def backward(self, slope: Tensor) -> Tensor:
        """Returns the gradient by the policy's weights, as they lie in `Policy.flat`, in memory that the next call uses
        again. `slope` is that by the logits."""
        policy, length = self.policy, len(self._rows)
        by_embedding, _, _, by_bias, by_head, by_head_bias = self._by_weights
        torch.bmm(self._states.transpose(1, 2), slope, out=by_head)
        torch.sum(slope, 1, keepdim=True, out=by_head_bias)
        torch.bmm(slope, self._head_weight.transpose(1, 2), out=self._by_h)
        # How each gate before its function moves c (i, f, g) or h (o), and how c moves h.
        i, f, o, g = self._parts
        parts = self._by_gates_np.reshape(length, self.n, 4, policy.hidden)
        np.multiply(g, i * (1 - i), out=parts[:, :, 0])
        np.multiply(self._c[:-1], f * (1 - f), out=parts[:, :, 1])
        np.multiply(self._tanh_c, o * (1 - o), out=parts[:, :, 2])
        np.multiply(i, 1 - g * g, out=parts[:, :, 3])
        np.multiply(o, 1 - self._tanh_c * self._tanh_c, out=self._through)
        by_c, back = self._by_c, self._weight.T
        by_c.fill(0)
        by_state: _Floats | None = None
        for by_gates, by_reads, before, by_h, through, forget, of_i_f, of_o, of_g in reversed(self._back):
            if by_state is not None:
                np.add(by_h, by_state, out=by_h)
            np.multiply(by_h, through, out=self._part)
            np.add(by_c, self._part, out=by_c)
            np.multiply(of_o, by_h, out=of_o)
            np.multiply(of_i_f, by_c[:, None], out=of_i_f)
            np.multiply(of_g, by_c, out=of_g)
            np.multiply(by_c, forget, out=by_c)
            torch.mm(by_gates, back, out=by_reads)
            by_state = before
        flat = self._by_gates.view(length * self.n, -1)
        torch.mm(self._reads[:length].view(length * self.n, -1).T, flat, out=self._by_gate_weight)
        torch.sum(flat, 0, out=by_bias)
        rows, width = self._rows.view(-1), by_embedding.shape[1]
        by_embedding.zero_().index_add_(0, rows, self._by_reads[:, :, :width].reshape(len(rows), width))
        return self._gradient
