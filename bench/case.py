"""Owns Case: one rule on one list of tensors, which all contenders of a cell update in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .rules import BenchRule
from .sizes import Size


class Unavailable(Exception):
    """A contender does not exist for a case; the message says why."""


class NotApplicable(Unavailable):
    """The contender has no form of this rule; nothing that anybody would miss."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that updates the tensors of a case.

    run(n) makes n steps. peer: counts when the best peer is looked for (not the engine, its own limits, its variants).
    build_seconds: what had to be compiled before the first step, if that takes noticeable time.
    """

    name: str
    run: Callable[[int], None]
    peer: bool = True
    build_seconds: float | None = None


def repeated(step: Callable[[], object]) -> Callable[[int], None]:
    """A run(n) that calls `step` n times."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run


@dataclass(slots=True)
class Case:
    """The tensors, and the number of the step that contenders built from it make."""

    rule: BenchRule
    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    step: int = 10
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def lists(self) -> list[list[Tensor]]:
        """p, g, then the states."""
        return [self.params, self.grads, *self.state.values()]


class Arena:
    """Tensors of one size, used again by every rule: at 1e8 elements the page faults of fresh ones take seconds."""

    def __init__(self, size: Size, seed: int = 0) -> None:
        self.size = size
        self._seed = seed
        self._lists = [[torch.empty(shape) for shape in size.shapes] for _ in range(4)]
        for p, g in zip(self._lists[0], self._lists[1], strict=True):
            p.requires_grad_()
            p.grad = g

    def case(self, rule: BenchRule, *, threads: int | None = None, step: int = 10) -> Case:
        """Fresh values: random p and g, states as after a few steps of that gradient."""
        generator = torch.Generator().manual_seed(self._seed)
        p, g, a, b = self._lists
        with torch.no_grad():
            for i in range(self.size.tensors):
                p[i].uniform_(-1, 1, generator=generator)
                g[i].uniform_(-0.1, 0.1, generator=generator)
                a[i].copy_(g[i]).mul_(0.5)
                b[i].copy_(g[i]).square_().mul_(0.01)
        lists = {"m": a, "v": b}
        return Case(rule, p, g, {s: lists[s] for s in rule.states}, step, threads or torch.get_num_threads())


def memory_needed(size: Size) -> int:
    """Bytes of an Arena, and the temporaries of the peer that makes most of them."""
    return size.elements * 4 * (4 + 6)
