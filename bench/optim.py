"""The optimizer classes as users call them: what step() adds to the engine's call, and its share of a training step.

AdamW everywhere, as torch has it in every implementation. Parts:

* step alone: RuleOptimizer.step() against the bare apply_rule call with the same rule, and torch's;
* param groups: 100 tensors in one group and in 100, each with a learning rate of its own;
* in training: forward and backward of a model before each timed step, so with cold caches and new gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nos_ext.optim import RuleOptimizer

from . import loop
from .case import Arena, Contender, repeated
from .harness import Effort, measure, summary
from .peers import ENGINE, engine
from .rules import LR, RULES
from .sizes import SIZES, Size

OURS: Final = "RuleOptimizer"
RULE: Final = RULES["adamw"]
IMPLEMENTATIONS: Final[dict[str, dict[str, Any]]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "for-loop": {"foreach": False},
}
TEN_MILLION: Final = Size("10M", "10 tensors of 1000 x 1000", ((1000, 1000),) * 10)
GROUPS: Final = 100
BATCH: Final = (4, 32)  # sequences, tokens of each
VOCABULARY: Final = 256


class Transformer(nn.Module):
    """Six encoder layers of width 368: 10 million parameters in 75 tensors."""

    def __init__(self, width: int = 368, layers: int = 6) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.out(self.encoder(self.embedding(tokens)))
        return out


@dataclass(frozen=True, slots=True)
class Training:
    """Parameters, and what leaves their gradients for the next batch in p.grad."""

    name: str
    params: list[Tensor]
    forward_backward: Callable[[], None]


def convnet(threads: int) -> Training:
    case = Arena(SIZES["convnet"]).case(RULE, threads=threads)
    return Training(f"ConvNet, batch of {loop.BATCH}", case.params, loop.train(case))


def transformer() -> Training:
    torch.manual_seed(0)
    model = Transformer()
    tokens = torch.randint(VOCABULARY, (8, *BATCH))
    batch = 0

    def forward_backward() -> None:
        nonlocal batch
        batch = (batch + 1) % len(tokens)
        model.zero_grad()
        x = tokens[batch]
        F.cross_entropy(model(x).flatten(0, 1), x.roll(-1, 1).flatten()).backward()  # type: ignore[no-untyped-call]

    sequences, length = BATCH
    name = f"Transformer, 6 layers, {sequences} x {length} tokens"
    return Training(name, list(model.parameters()), forward_backward)


def ours(params: Any, name: str = OURS) -> Contender:
    optimizer = RuleOptimizer(params, engine.program(RULE.text), LR)
    return Contender(name, repeated(optimizer.step), peer=False)


def torchs(params: Any, implementation: str, name: str | None = None) -> Contender:
    optimizer = torch.optim.AdamW(params, lr=LR, **IMPLEMENTATIONS[implementation])
    return Contender(name or f"AdamW {implementation}", repeated(optimizer.step))


def by_group(params: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [{"params": [p], "lr": LR * (1 + i / len(params))} for i, p in enumerate(params)]


def _row(scene: str, contenders: list[Contender], effort: Effort, base: str, between: Any = None) -> dict[str, Any]:
    outcome = measure(contenders, effort, between or (lambda: None), (base,))
    return {"scene": scene, "rule": RULE.name, "base": base} | summary(outcome, base)


def _training(training: Training, effort: Effort) -> dict[str, Any]:
    training.forward_backward()
    contenders = [ours(training.params), *(torchs(training.params, kind) for kind in IMPLEMENTATIONS)]
    spent: list[float] = []

    def between() -> None:
        start = time.perf_counter()
        training.forward_backward()
        spent.append(time.perf_counter() - start)

    one_call = replace(effort, min_sample=0.0)  # a second one would find warm caches
    row = _row(training.name, contenders, one_call, OURS, between)
    return row | {"training_us": median(spent) * 1e6}


def run(effort: Effort, threads: int) -> Iterator[dict[str, Any]]:
    for size in (SIZES["convnet"], TEN_MILLION):
        case = Arena(size).case(RULE, threads=threads)
        peers = [torchs(case.params, kind) for kind in IMPLEMENTATIONS]
        yield _row(f"step alone, {size.what}", [engine.build(case), ours(case.params), *peers], effort, ENGINE)
    params = Arena(Size("groups", "", ((32, 32),) * GROUPS)).case(RULE, threads=threads).params
    one, many = "1 group", f"{GROUPS} groups"
    contenders = [
        ours(params, f"{OURS}, {one}"),
        ours(by_group(params), f"{OURS}, {many}"),
        torchs(params, "fused", f"AdamW fused, {one}"),
        torchs(by_group(params), "fused", f"AdamW fused, {many}"),
    ]
    yield _row(f"param groups, {GROUPS} tensors of 32 x 32", contenders, effort, contenders[0].name)
    for training in (convnet(threads), transformer()):
        yield _training(training, effort)
