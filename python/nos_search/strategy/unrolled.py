"""Owns the controller's network without autograd: it draws strings, and its gradient is worked out by hand.

The network is small, and most of the time of torch's operations on it goes into calling them. So everything is NumPy's,
whose calls cost a third, in memory that was made once. Only the gradient by the weights of the gates, the one large
product, is torch's, whose number of threads the caller sets. The strings are the last dimension: so whatever a step
works on, one gate or four, is one stretch of memory. `Policy` computes the same distributions by torch alone, and the
tests hold one to the other.
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
_HALF, _ONE = np.float32(0.5), np.float32(1)
_LEAST_LOG = -100.0  # of a draw that rounding has made 0; so far from it that no other is touched
_ALONE = 2**18  # multiplications: BLAS libraries give a product of so many to one thread


def _pair(*shape: int) -> tuple[Tensor, _Floats]:
    """Returns memory as torch and as NumPy see it. It holds zeros."""
    tensor = torch.zeros(shape)
    return tensor, tensor.numpy()


def _blocks(rows: _Floats, columns: int) -> _Floats:
    """Returns a matrix as (blocks, rows of a block, ...), so that the product of a block with a matrix of so many
    columns is for one thread."""
    height, depth = rows.shape
    most = max(1, _ALONE // (depth * columns))
    size = next(size for size in range(min(most, height), 0, -1) if height % size == 0)
    return np.lib.stride_tricks.as_strided(rows, (height // size, size, depth), (size * rows.strides[0], *rows.strides))


class Unrolled:
    """The network of a policy, unrolled over the positions of n strings. Arrays are (L, ..., n): position, then string.
    Those of all tokens are (V, L, n).

    `strings()` says which strings it is about, and `forward()` computes, at the policy's present weights, `log_p`
    (V, L, n), the log-probabilities of every token after each string's own prefix, -1e30 where it is masked, and `p`,
    the probabilities. `backward()` gives the gradient of what follows from them. `live` (L, n) is 1 where the rule
    depends on the token.
    """

    def __init__(self, policy: Policy, n: int) -> None:
        self.policy, self.n = policy, n
        length, hidden, widest = len(policy.sizes), policy.hidden, policy.widest
        width = policy.embedding.shape[1]
        self._embedding, head, head_bias = (
            weight.detach().numpy() for weight in (policy.embedding, policy.head_weight, policy.head_bias)
        )
        self._head, self._head_transposed = head, head.transpose(0, 2, 1)
        self._head_bias = head_bias.transpose(2, 0, 1)
        self._gradient = torch.zeros_like(policy.flat)
        self._by_weights, self._by_gate_weight = policy.views(self._gradient), policy.gate_weight(self._gradient)
        # What a step reads: the token's row of the embedding, the state before it, and a 1 for the bias.
        reads = width + hidden + 1
        self._reads = np.zeros((length + 1, reads, n), np.float32)
        self._reads[:, -1] = 1
        self._inputs = self._reads[:length, :width]
        self._states = self._reads[1:, width:-1]
        # The logistic function is (tanh(x / 2) + 1) / 2: so one call serves all four gates, and nothing overflows. The
        # halves are in the weights that a step multiplies with, which halving does not round.
        self._scale = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), hidden)
        self._weight = policy.gate_weight(policy.flat).numpy()
        self._scaled = np.zeros_like(self._weight)
        self._forth, self._back = _blocks(self._scaled.T, n), _blocks(self._weight[:-1], n)
        self._gates = np.zeros((length, 4 * hidden, n), np.float32)  # i, f, o, then what they let in
        # i times what it lets in, then f times c before it; c is their sum.
        self._terms = np.zeros((length, 2 * hidden, n), np.float32)
        self._c = np.zeros((length + 1, hidden, n), np.float32)
        self._tanh_c = np.zeros((length, hidden, n), np.float32)
        self._part, self._by_c = np.zeros((hidden, n), np.float32), np.zeros((hidden, n), np.float32)
        self._by_gates = np.zeros((length, 4 * hidden, n), np.float32)
        self._by_reads = np.zeros((length, reads - 1, n), np.float32)
        self._by_h = np.zeros((length, hidden, n), np.float32)
        self._through = np.zeros((length, hidden, n), np.float32)
        # `_reads` and `_by_gates` with position and string side by side, for one product over both.
        self._all_reads, self._all_reads_np = _pair(reads, length, n)
        self._all_by_gates, self._all_by_gates_np = _pair(4 * hidden, length, n)
        self.log_p = np.zeros((widest, length, n), np.float32)
        self.p = np.zeros((widest, length, n), np.float32)
        self._rows = np.zeros((length, n), np.int64)  # of the embedding, 0 before the first token
        self._offsets = policy.offsets.numpy()[:, None]
        self._chosen = np.zeros((length, n), np.int64)  # where the strings' own tokens are in a flat (V, L, n)
        self._starts = np.arange(length * n).reshape(length, n)
        self._masked = np.zeros((widest, length, n), np.float32)  # NEVER where a token may not stand, and else 0
        self.live = np.zeros((length, n), np.float32)
        # Views of each position, made once: to make one costs as much as to work on it.
        gates = self._gates.reshape(length, 4, hidden, n)
        self._cells = [
            (
                self._reads[k],
                self._gates[k].reshape(*self._forth.shape[:2], n),
                self._gates[k],
                self._gates[k, : 3 * hidden],
                *gates[k],
                *self._terms[k].reshape(2, hidden, n),
                self._c[k],
                self._c[k + 1],
                self._tanh_c[k],
                self._states[k],
            )
            for k in range(length)
        ]
        by_parts = self._by_gates.reshape(length, 4, hidden, n)
        self._steps_back = [
            (
                self._by_gates[k],
                self._by_reads[k].reshape(*self._back.shape[:2], n),
                self._by_reads[k, width:],
                self._by_h[k],
                self._through[k],
                gates[k, 1],
                by_parts[k, :2],
                by_parts[k, 2],
                by_parts[k, 3],
            )
            for k in range(length)
        ]

    # --- forward ---------------------------------------------------------------------------------------------------

    def _take_weights(self) -> None:
        """Takes the policy's present weights for the steps to come."""
        np.multiply(self._weight, self._scale, out=self._scaled)

    def _cell(self, where: int) -> None:
        """Makes one LSTM step."""
        reads, product, gates, logistic, i, f, o, g, new, kept, before, c, tanh_c, after = self._cells[where]
        np.matmul(self._forth, reads, out=product)
        np.tanh(gates, out=gates)
        np.multiply(logistic, _HALF, out=logistic)
        np.add(logistic, _HALF, out=logistic)
        np.multiply(i, g, out=new)
        np.multiply(f, before, out=kept)
        np.add(kept, new, out=c)
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=after)

    @staticmethod
    def _softmax(log_p: _Floats, p: _Floats) -> None:
        """Makes log-probabilities of logits, in place, and probabilities."""
        np.subtract(log_p, np.maximum.reduce(log_p), out=log_p)
        np.exp(log_p, out=p)
        total = np.add.reduce(p)
        np.divide(p, total, out=p)
        np.subtract(log_p, np.log(total), out=log_p)

    def strings(self, strings: Sequence[Tokens]) -> None:
        """Takes n strings."""
        policy = self.policy
        tokens = np.array(strings, np.int64).T
        np.add(self._starts, tokens * self._starts.size, out=self._chosen)
        np.add(tokens[:-1], self._offsets[:-1], out=self._rows[1:])
        rows = policy.mask_rows(strings).T
        self._masked[...] = policy.penalties[rows].transpose(2, 0, 1)
        self.live[...] = np.array([policy.space.live(string) for string in strings], np.float32).T

    def forward(self) -> None:
        self._take_weights()
        self._inputs[...] = self._embedding[self._rows].transpose(0, 2, 1)
        for where in range(len(self._rows)):
            self._cell(where)
        np.matmul(self._head_transposed, self._states, out=self.log_p.transpose(1, 0, 2))
        np.add(self.log_p, self._head_bias, out=self.log_p)
        np.add(self.log_p, self._masked, out=self.log_p)
        self._softmax(self.log_p, self.p)

    def log_prob(self) -> _Floats:
        """Returns the (n,) log-probabilities of the strings themselves."""
        return np.asarray(self.log_p.reshape(-1)[self._chosen].sum(axis=0))

    def entropies(self) -> _Floats:
        """Returns (L, n) nats, those of choices that do not change the rule among them. See Policy.entropy."""
        return np.asarray(-np.add.reduce(self.p * self.log_p))

    def sample(self, generator: torch.Generator) -> tuple[list[Tokens], list[float]]:
        """Draws n strings token by token, and returns them with their log-probabilities in nats."""
        policy, logits = self.policy, self.log_p
        # The largest of logits plus draws of the Gumbel distribution is a draw from their softmax.
        noise = torch.empty(*self._chosen.shape, policy.widest).exponential_(generator=generator).log_()
        gumbel = np.ascontiguousarray(-noise.clamp_(min=_LEAST_LOG).numpy().transpose(2, 0, 1))
        strings: list[list[int]] = [[] for _ in range(self.n)]
        rows = self._rows[0]
        self._take_weights()
        for where, drawn in enumerate(self._chosen):
            self._inputs[where] = self._embedding[rows].T
            self._cell(where)
            masks = [policy.mask_row(string) for string in strings]  # before `penalties`, which grow
            here = logits[:, where]
            np.matmul(self._head_transposed[where], self._states[where], out=here)
            np.add(here, self._head_bias[:, where], out=here)
            np.add(here, policy.penalties[masks].T, out=here)
            np.argmax(here + gumbel[:, where], axis=0, out=drawn)
            rows = drawn + self._offsets[where]
            for string, token in zip(strings, drawn.tolist(), strict=True):
                string.append(token)
        np.add(self._starts, self._chosen * self._starts.size, out=self._chosen)
        self._softmax(self.log_p, self.p)
        return [tuple(string) for string in strings], self.log_prob().tolist()

    # --- backward --------------------------------------------------------------------------------------------------

    def slope(self, by_log_prob: _Floats, by_entropy: float) -> _Floats:
        """Returns (V, L, n): the gradient, by the logits, of a number whose gradient by `log_prob` is given, (n,), and
        which has `by_entropy` times the mean of the strings' live entropies added to it."""
        share = np.float32(by_entropy / self.n) * self.live
        out = np.add(self.log_p, self.entropies())
        np.multiply(out, share, out=out)
        np.add(out, by_log_prob, out=out)
        np.multiply(out, self.p, out=out)
        np.negative(out, out=out)
        out.reshape(-1)[self._chosen] += by_log_prob
        return out

    def backward(self, slope: _Floats) -> Tensor:
        """Returns the gradient by the policy's weights, as they lie in `Policy.flat`, in memory that the next call uses
        again. `slope` is that by the logits."""
        by_embedding, *_, by_head, by_head_bias = self._by_weights
        np.matmul(self._states, slope.transpose(1, 2, 0), out=by_head.numpy())
        np.add.reduce(slope, axis=2, out=by_head_bias.numpy()[:, 0].T)
        np.matmul(self._head, slope.transpose(1, 0, 2), out=self._by_h)
        self._slopes_of_gates()
        by_c = self._by_c
        by_c.fill(0)
        by_state: _Floats | None = None
        for by_gates, by_reads, before, by_h, through, forget, of_i_f, of_o, of_g in reversed(self._steps_back):
            if by_state is not None:
                np.add(by_h, by_state, out=by_h)
            np.multiply(by_h, through, out=self._part)
            np.add(by_c, self._part, out=by_c)
            np.multiply(of_o, by_h, out=of_o)
            np.multiply(of_i_f, by_c, out=of_i_f)
            np.multiply(of_g, by_c, out=of_g)
            np.multiply(by_c, forget, out=by_c)
            np.matmul(self._back, by_gates, out=by_reads)
            by_state = before
        self._all_reads_np[...] = self._reads[:-1].transpose(1, 0, 2)
        self._all_by_gates_np[...] = self._by_gates.transpose(1, 0, 2)
        torch.mm(self._all_reads.flatten(1), self._all_by_gates.flatten(1).T, out=self._by_gate_weight)
        by_rows = torch.from_numpy(self._by_reads)[:, : by_embedding.shape[1]].transpose(1, 2)
        by_embedding.zero_().index_add_(0, torch.from_numpy(self._rows).flatten(), by_rows.flatten(0, 1))
        return self._gradient

    def _slopes_of_gates(self) -> None:
        """Says in `_by_gates` how each gate before its function moves c (i, f, g) or h (o), and in `_through` how c
        moves h."""
        hidden = self.policy.hidden
        sides = slice(2 * hidden), slice(2 * hidden, 3 * hidden), slice(3 * hidden, None)
        (i_f, o, g), (of_i_f, of_o, of_g) = (
            [each[:, side] for side in sides] for each in (self._gates, self._by_gates)
        )
        terms, h, through = self._terms, self._states, self._through
        np.multiply(i_f, terms, out=of_i_f)  # i' g = i (1 - i) g, and f' c = f (1 - f) c
        np.subtract(terms, of_i_f, out=of_i_f)
        np.multiply(o, h, out=of_o)  # o' tanh(c) = o (1 - o) tanh(c)
        np.subtract(h, of_o, out=of_o)
        np.multiply(g, terms[:, :hidden], out=of_g)  # i g' = i (1 - g g)
        np.subtract(i_f[:, :hidden], of_g, out=of_g)
        np.multiply(h, self._tanh_c, out=through)  # o tanh'(c) = o (1 - tanh(c) tanh(c))
        np.subtract(o, through, out=through)
