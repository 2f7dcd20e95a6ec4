"""Many candidates at once: one step of K rules, each on its own slice of stacked tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

import nos_ext

from .case import Contender, repeated
from .harness import Effort, measure, summary
from .peers.eager import UPDATES
from .peers.engine import program
from .rules import LR, RULES, TOTAL_STEPS, BenchRule
from .sizes import CONVNET, Shape

ENGINE: Final = "apply_population"
MIXED: Final = ("sgd", "momentum", "adam", "lion", "rmsprop", "powersign", "addsign", "random15")
SAME: Final = ("powersign",)
STEP: Final = 10

SMALLNET: Final[tuple[Shape, ...]] = (
    *((4, 3, 3, 3), (4,)),
    *((8, 4, 3, 3), (8,)),
    *((8, 8, 3, 3), (8,)),
    *((24, 32), (24,)),
    *((10, 24), (10,)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """k candidates with tensors of `shapes` each; the slices take the rules in turn."""

    name: str
    shapes: tuple[Shape, ...]
    rules: tuple[str, ...]
    k: int = 64
    eager: bool = True  # whether torch can be asked to do it in a reasonable time


SCENES: Final = (
    Scene("one tensor of 50,000, 8 rules", ((50_000,),), MIXED),
    Scene("one tensor of 50,000, PowerSign", ((50_000,),), SAME),
    Scene("a ConvNet of 10 tensors, 50k, 8 rules", CONVNET, MIXED),
    Scene("a ConvNet of 10 tensors, 50k, PowerSign", CONVNET, SAME),
    Scene("a ConvNet of 10 tensors, 2k, 8 rules", SMALLNET, MIXED),
    Scene("one tensor of 2,000, 8 rules", ((2_000,),), MIXED),
    Scene("2 elements, 8 rules", ((2,),), MIXED, 4096, eager=False),
    Scene("10 elements, 8 rules", ((10,),), MIXED, 4096, eager=False),
    Scene("100 elements, 8 rules", ((100,),), MIXED, 4096, eager=False),
)


@dataclass(slots=True)
class Stack:
    """Stacked tensors, two state slots, and the rule of each slice."""

    rules: list[BenchRule]
    params: list[Tensor]
    grads: list[Tensor]
    slots: list[list[Tensor]]

    @property
    def used(self) -> list[list[Tensor]]:
        """The slots that the rules need."""
        return self.slots[: max(len(rule.states) for rule in self.rules)]

    def rows(self, k: int) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
        """Views of slice k: params, grads, states of its rule."""
        states = self.slots[: len(self.rules[k].states)]
        return [x[k] for x in self.params], [x[k] for x in self.grads], [[x[k] for x in slot] for slot in states]


def stack(shapes: tuple[Shape, ...], names: tuple[str, ...], k: int, seed: int = 0) -> Stack:
    generator = torch.Generator().manual_seed(seed)

    def uniform(bound: float) -> list[Tensor]:
        return [torch.empty(k, *shape).uniform_(-bound, bound, generator=generator) for shape in shapes]

    slots = [[torch.zeros(k, *shape) for shape in shapes] for _ in range(2)]
    return Stack([RULES[names[i % len(names)]] for i in range(k)], uniform(1.0), uniform(0.1), slots)


def apply_population(s: Stack) -> Callable[[], None]:
    programs, lrs, slots = [program(rule.text) for rule in s.rules], [LR] * len(s.rules), s.used

    def step() -> None:
        nos_ext.apply_population(programs, s.params, s.grads, slots, lr=lrs, step=STEP, total_steps=TOTAL_STEPS)

    return step


def apply_rules(s: Stack, keep_views: bool) -> Callable[[], None]:
    programs = [program(rule.text) for rule in s.rules]
    kept = [s.rows(k) for k in range(len(programs))] if keep_views else None

    def step() -> None:
        for k, compiled in enumerate(programs):
            rows = kept[k] if kept else s.rows(k)
            nos_ext.apply_rule(compiled, *rows, lr=LR, step=STEP, total_steps=TOTAL_STEPS)

    return step


def eager(s: Stack) -> Callable[[], None]:
    work = []
    for k, rule in enumerate(s.rules):
        params, grads, states = s.rows(k)
        work += [(UPDATES[rule.name], rule.at(STEP), t) for t in zip(params, grads, *states, strict=True)]

    @torch.no_grad()
    def step() -> None:
        for update, scalars, tensors in work:
            update(scalars, *tensors)

    return step


def eager_stacked(s: Stack) -> Callable[[], None]:
    """One rule for all slices, so the stacked tensors can be updated whole."""
    rule = s.rules[0]
    scalars, lists = rule.at(STEP), [s.params, s.grads, *s.used]

    @torch.no_grad()
    def step() -> None:
        for tensors in zip(*lists, strict=True):
            UPDATES[rule.name](scalars, *tensors)

    return step


def contenders(s: Stack, with_eager: bool) -> list[Contender]:
    out = [Contender(ENGINE, repeated(apply_population(s)), peer=False)]
    out.append(Contender("apply_rule x K", repeated(apply_rules(s, keep_views=True)), peer=False))
    if not with_eager:
        return out
    out.append(Contender("apply_rule x K, new views", repeated(apply_rules(s, keep_views=False)), peer=False))
    out.append(Contender("eager x K", repeated(eager(s))))
    if len({rule.name for rule in s.rules}) == 1:
        out.append(Contender("eager stacked", repeated(eager_stacked(s))))
    return out


def run(effort: Effort) -> Iterator[dict[str, Any]]:
    for scene in SCENES:
        found = contenders(stack(scene.shapes, scene.rules, scene.k), scene.eager)
        outcome = measure(found, effort, always=(ENGINE, "apply_rule x K"))
        yield {"scene": scene.name, "candidates": scene.k} | summary(outcome, ENGINE)
