"""What float32 may cost a child's gradients: the float64 oracle, with a random error wherever float32 would round.

A single evaluation in float32 is one draw from the errors that rounding can make, and another order of the same sums is
another draw. Here each draw is made in float64: every sum of products gets a normally distributed error, whose variance
is that of its rounded partial sums, and the errors travel through the network as they would in float32. Several draws
tell how far a float32 gradient lies from the exact one. docs/children.md derives the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vjp

Arrays = list[np.ndarray]
U = 2.0**-24  # the largest relative error of one rounding in float32
DRAWS = 8
# A gradient may be off by this many standard deviations: nearly normal errors of 10^5 numbers reach five, and the rest
# is for standard deviations that are estimated from DRAWS draws.
DEVIATIONS = 16
KINK = 64 * U  # relative: this near its kink a positive part, or a maximum, may go either way
Bilinear = Callable[[Tensor, Tensor], Tensor]


def _rounded(x: Tensor, squares: Tensor, addends: float, draw: torch.Generator) -> Tensor:
    """A sum x, with the errors of its partial sums.

    When n addends come in random order, the squares of the n partial sums add up to (n + 1) / 6 (2 x^2 + squares) on
    average. Each partial sum has an error that is equally likely anywhere in [-U, U], relatively: hence the third.
    """
    deviation = U * ((addends + 1) / 18 * (2 * x * x + squares)).sqrt()
    return x + deviation * torch.randn(x.shape, generator=draw, dtype=x.dtype)


class _Product(torch.autograd.Function):
    """A bilinear function of two tensors whose sums, forward and backward, are rounded. `products` counts them all."""

    @staticmethod
    def forward(ctx: Any, op: Bilinear, products: int, a: Tensor, b: Tensor, draw: torch.Generator) -> Tensor:
        ctx.op, ctx.products, ctx.draw = op, products, draw
        ctx.save_for_backward(a, b)
        x = op(a, b)
        addends = products / x.numel()
        squares = op((a * a).float(), (b * b).float()).double() if addends > 1 else x * x
        return _rounded(x, squares, addends, draw)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        of_a, of_b = vjp(ctx.op, a, b)[1](g)
        n_a, n_b = ctx.products / a.numel(), ctx.products / b.numel()
        if n_a > 1 or n_b > 1:
            squares_a, squares_b = vjp(ctx.op, (a * a).float(), (b * b).float())[1]((g * g).float())
        else:
            squares_a, squares_b = of_a * of_a, of_b * of_b
        n_b = min(n_b, 32 + n_b / 16)  # sums over the batch: in sixteen lanes, or of 32 examples at a time
        return (
            None,
            None,
            _rounded(of_a, squares_a, n_a, ctx.draw),
            _rounded(of_b, squares_b, n_b, ctx.draw),
            None,
        )


class _Added(torch.autograd.Function):
    """A sum that goes on with the n addends of `x` where `start` ended, so that each partial sum has `start` in it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, addends: int, draw: torch.Generator) -> Tensor:
        sums = x + start
        return sums + U * math.sqrt(addends / 3) * start * torch.randn(sums.shape, generator=draw, dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return g, g, None, None


class _Repeated(torch.autograd.Function):
    """A weight at every position, and in every lane where it is a bias. Backward it is a sum over positions, in their
    order: gradients of neighbouring positions are alike, and so their partial sums are taken as they are."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, sizes: tuple[int, ...], draw: torch.Generator) -> Tensor:
        ctx.lanes, ctx.draw = len(sizes) > w.dim() + 1, draw
        return w.expand(sizes)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        partial = g.cumsum(0)
        x, squares = partial[-1], partial.square().sum(0)
        if ctx.lanes:
            x, squares = x.sum(0), squares.sum(0)
        return x + U * (squares / 3).sqrt() * torch.randn(x.shape, generator=ctx.draw, dtype=x.dtype), None, None


class _LookedUp(torch.autograd.Function):
    """Rows of a table. Backward those of equal tokens are summed, one position after the other."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, tokens: Tensor, draw: torch.Generator) -> Tensor:
        ctx.tokens, ctx.rows, ctx.draw = tokens.T.flatten(), len(table), draw
        return table[tokens]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        order = ctx.tokens.argsort(stable=True)
        sums = torch.cat([g.new_zeros(1, g.shape[-1]), g.transpose(0, 1).flatten(0, 1)[order].cumsum(0)])
        counts = ctx.tokens.bincount(minlength=ctx.rows)
        ends = counts.cumsum(0)
        partial = sums[1:] - sums[ends - counts].repeat_interleave(counts, 0)
        squares = torch.zeros(ctx.rows, g.shape[-1], dtype=g.dtype).index_add(0, ctx.tokens[order], partial.square())
        x = sums[ends] - sums[ends - counts]
        return x + U * (squares / 3).sqrt() * torch.randn(x.shape, generator=ctx.draw, dtype=x.dtype), None, None


class _Gate(torch.autograd.Function):
    """tanh or sigmoid, whose slope is taken from the rounded result: where that is near 1, little of the slope is
    left. Each has about two roundings more than its last."""

    @staticmethod
    def forward(ctx: Any, of: Callable[[Tensor], Tensor], x: Tensor, draw: torch.Generator) -> Tensor:
        y = of(x)
        y = y + U * y * torch.randn(y.shape, generator=draw, dtype=y.dtype)
        ctx.is_tanh, ctx.draw = of is torch.tanh, draw
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor, None]:
        (y,) = ctx.saved_tensors
        slope = 1 - y * y if ctx.is_tanh else y * (1 - y)
        return None, g * (slope + U * y.abs() * torch.randn(y.shape, generator=ctx.draw, dtype=y.dtype)), None


class Draw:
    """The layers, with the random errors of one draw. Their names and arguments are those of the exact ones."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def product(self, op: Bilinear, products: int, a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = _Product.apply(op, products, a, b, self._random)  # type: ignore[no-untyped-call]
        return result

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return self.product(torch.mul, max(a.numel(), b.numel()), a, b)

    def relative(self, x: Tensor, roundings: Tensor | float = 1) -> Tensor:
        return x + U * roundings * x * torch.randn(x.shape, generator=self._random, dtype=x.dtype)

    def round(self, x: Tensor) -> Tensor:
        return self.times(x, torch.ones_like(x))

    def repeat(self, w: Tensor, *sizes: int) -> Tensor:
        result: Tensor = _Repeated.apply(w, sizes, self._random)  # type: ignore[no-untyped-call]
        return result

    def gate(self, of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        result: Tensor = _Gate.apply(of, x, self._random)  # type: ignore[no-untyped-call]
        return result

    def near(self, x: Tensor, scale: Tensor) -> Tensor:
        """x with errors that let it fall on either side of a kink where it is as near as rounding."""
        return x + KINK * scale * torch.randn(x.shape, generator=self._random, dtype=x.dtype)

    def relu(self, x: Tensor, scale: Tensor) -> Tensor:
        return torch.where(self.near(x.detach(), scale) > 0, x, 0)

    def add(self, x: Tensor, start: Tensor, addends: int) -> Tensor:
        result: Tensor = _Added.apply(x, start, addends, self._random)  # type: ignore[no-untyped-call]
        return result

    def linear(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return self.bias(self.product(F.linear, x.numel() * len(w), x, w), b)

    def bias(self, x: Tensor, b: Tensor) -> Tensor:
        """x + b, whose backward sums are rounded."""
        return x + self.times(torch.ones_like(x).detach(), b)

    def convolution(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        z = self.bias(
            self.product(lambda x, w: F.conv2d(x, w, padding=1), 9 * x.numel() * len(w), x, w), b.view(-1, 1, 1)
        )
        return self.relu(z, z.detach().square().mean((0, 2, 3), keepdim=True).sqrt())

    def norm_pool(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        def mean(x: Tensor) -> Tensor:
            share = torch.ones_like(x.detach()) * n / x.numel()
            return self.product(lambda x, share: (x * share).sum((0, 2, 3)), x.numel(), x, share)

        n, shape = x.shape[1], (1, -1, 1, 1)
        centre = mean(x)
        away = x - centre.view(shape)
        inverse = self.round((mean(self.times(away, away)) + 1e-5).rsqrt())
        scale = self.times(gain, inverse)
        shift = self.round(offset - self.times(centre, scale))
        y = self.round(self.times(x, scale.view(shape)) + shift.view(shape))
        size = (scale * centre).abs() + offset.abs() + gain.abs()
        near = self.near(y.detach(), size.detach().view(shape))
        _, which = F.max_pool2d(near, 2, return_indices=True)
        return y.flatten(2).gather(2, which.flatten(2)).view_as(which)

    def gru(self, given: Tensor, u: Tensor, c: Tensor) -> Tensor:
        """given: the sums W x + b at every position."""
        units = u.shape[1]
        h = given.new_zeros(len(given), units)
        states = []
        length = given.shape[1]
        us, cs = self.repeat(u, length, *u.shape), self.repeat(c, length, len(given), len(c))
        for at, u_here, c_here in zip(given.unbind(1), us, cs, strict=True):
            of_h = self.product(F.linear, h.numel() * len(u_here), h, u_here)
            r_and_z = self.add(of_h[:, : 2 * units], (at + c_here)[:, : 2 * units], units)
            r, z = self.gate(torch.sigmoid, r_and_z).chunk(2, 1)
            of_n = self.add(of_h[:, 2 * units :], c_here[:, 2 * units :], units)
            n = self.gate(torch.tanh, at[:, 2 * units :] + self.times(r, of_n))
            h = self.round(n + self.times(z, h - n))
            states.append(h)
        return torch.stack(states, 1)

    def text_gru(self, tokens: Tensor, table: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """The products of W are taken once for every token, so all positions with a token share their errors."""
        return self.gru(self.embedding(tokens, self.linear(table, w, b)), u, c)

    def embedding(self, tokens: Tensor, w: Tensor) -> Tensor:
        result: Tensor = _LookedUp.apply(w, tokens, self._random)  # type: ignore[no-untyped-call]
        return result

    def logits_gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """Of the mean loss. Its exponentials lose what their arguments lose. Their sum is shared by all classes of a
        target, and the number of targets by all of them."""
        away = logits.max(-1, keepdim=True).values - logits
        exponentials = self.relative(away.neg().exp(), 1 + away)
        total = exponentials.sum(-1, keepdim=True)
        total = _rounded(total, exponentials.square().sum(-1, keepdim=True), logits.shape[-1], self._random)
        p = self.relative(exponentials / total)
        counts = y >= 0
        share = self.relative(1 / counts.sum().double())
        wanted = F.one_hot(y.clamp(min=0), p.shape[-1])
        return self.relative((p - wanted) * counts.unsqueeze(-1)) * share


def _gru(draw: Draw, h: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return draw.gru(draw.linear(h, w, b), u, c)


LAYERS: dict[str, Callable[[Draw, Tensor, Iterator[Tensor]], Tensor]] = {
    "convolution": lambda d, h, w: d.convolution(h, next(w), next(w)),
    "norm_pool": lambda d, h, w: d.norm_pool(h, next(w), next(w)),
    "linear": lambda d, h, w: d.linear(h.flatten(1), next(w), next(w)),
    "relu": lambda d, h, _: d.relu(h, h.detach().square().mean().sqrt()),
    "embedding": lambda d, h, w: d.embedding(h, next(w)),
    "gru": lambda d, h, w: _gru(d, h, *(next(w) for _ in range(4))),
    "text_gru": lambda d, h, w: d.text_gru(h, *(next(w) for _ in range(5))),
    "position_linear": lambda d, h, w: d.linear(h, next(w), next(w)),
}


def _drawn(layers: Sequence[tuple[str, int]], weights: Arrays, x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    draw = Draw(seed)
    leaves = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in weights]
    h = torch.from_numpy(x)
    h = h.double() if h.is_floating_point() else h.long()
    w = iter(leaves)
    for name, _ in layers:
        h = LAYERS[name](draw, h, w)
    h.backward(draw.logits_gradient(h.detach(), torch.from_numpy(y).long()))
    return [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]


def error_bounds(
    layers: Sequence[tuple[str, int]], weights: Arrays, x: np.ndarray, y: np.ndarray, exact: Arrays
) -> Arrays:
    """How far each number of the gradients may be from the exact one. Half of what is usual in its tensor is always
    allowed, as few draws may all be small by chance."""
    errors = [
        [got - want for got, want in zip(_drawn(layers, weights, x, y, seed), exact, strict=True)]
        for seed in range(DRAWS)
    ]
    bounds = []
    for draws in zip(*errors, strict=True):
        squares = np.mean(np.square(draws), 0)
        bounds.append(DEVIATIONS * np.sqrt(squares + squares.mean() / 4))
    return bounds
