"""Smaller states: a step of AdamW with states in float32, bfloat16 and int8, 10 tensors of 1024 x 1024, one thread.
And the step of HostOptimizer, which also writes parameters in bfloat16, against torch's fused AdamW, all float32.

Peers with 8-bit states take part where they are installed (`pip install bitsandbytes torchao`), on the CPU. Each
contender has parameters of its own. `state_bytes` is what it keeps per parameter beside the parameter and its gradient.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from nos_ext.optim import HostOptimizer, create, library

from .case import Contender, repeated
from .harness import Effort, measure, summary
from .rules import LR

SHAPES: Final = ((1024, 1024),) * 10  # torchao keeps float32 states where blocks of 256 do not fill the tensor
BASE: Final = "float32"
HOST: Final = "HostOptimizer, bfloat16 parameters"
FUSED: Final = "torch AdamW fused"
_WARM_UP: Final = 3  # steps, after which all states are there


@dataclass(frozen=True, slots=True)
class _Peer:
    """A class of another package. `why` of its absence is what its import or its first step says."""

    name: str
    module: str
    attribute: str


PEERS: Final = (
    _Peer("bitsandbytes AdamW8bit", "bitsandbytes.optim", "AdamW8bit"),
    _Peer("torchao AdamW8bit", "torchao.optim", "AdamW8bit"),
)


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=make).mul_(0.02).to(dtype).requires_grad_() for shape in SHAPES]
    for p in params:
        p.grad = torch.randn(p.shape, generator=make).mul_(1e-3).to(dtype)
    return params


def bytes_of(optimizer: torch.optim.Optimizer) -> float:
    """The bytes of states per parameter. Tensor subclasses tell those of the tensors that they are made of."""

    def size(x: Any) -> int:
        if isinstance(x, torch.Tensor) and hasattr(x, "__tensor_flatten__"):
            return sum(size(getattr(x, name)) for name in x.__tensor_flatten__()[0])
        return int(x.numel() * x.element_size()) if isinstance(x, torch.Tensor) else 0

    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    return sum(size(x) for entry in optimizer.state.values() for x in entry.values()) / float(count)


def _ours(state_dtype: str | None) -> torch.optim.Optimizer:
    return create("adamw", parameters(), lr=LR, state_dtype=state_dtype)


def _fused() -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters(), lr=LR, fused=True)


def _theirs(peer: _Peer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = getattr(importlib.import_module(peer.module), peer.attribute)(parameters(), lr=LR)
    return made


def _warm(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for _ in range(_WARM_UP):
        optimizer.step()
    return optimizer


def contenders() -> tuple[list[Contender], dict[str, float], dict[str, str]]:
    """All that run here, the bytes of their states, and why others do not."""
    wanted: dict[str, Callable[[], torch.optim.Optimizer]] = {
        BASE: lambda: _ours(None),
        "bfloat16": lambda: _ours("bfloat16"),
        "int8": lambda: _ours("int8"),
        FUSED: _fused,
        **{peer.name: partial(_theirs, peer) for peer in PEERS},
    }
    out: list[Contender] = []
    sizes: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name, make in wanted.items():
        try:
            optimizer = _warm(make())
        except Exception as error:  # whatever the package says: that it has no CPU kernels, for example
            if name not in {peer.name for peer in PEERS}:
                raise
            absent[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"
            continue
        sizes[name] = bytes_of(optimizer)
        out.append(Contender(name, repeated(optimizer.step), peer=name not in (BASE, "bfloat16", "int8")))
    return out, sizes, absent


def run(effort: Effort) -> Iterator[dict[str, Any]]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        all_of_them, sizes, absent = contenders()
        outcome = measure(all_of_them, effort, always=(BASE,))
        head = {"scene": "AdamW, 10 tensors of 1024 x 1024, one thread", "rule": "adamw", "base": BASE}
        yield head | summary(outcome, BASE) | {"state_bytes": sizes, "absent": absent}
        del all_of_them, outcome
        for threads in sorted({1, min(2, before)}):
            torch.set_num_threads(threads)
            yield _on_the_host(effort, threads)
    finally:
        torch.set_num_threads(before)


def _on_the_host(effort: Effort, threads: int) -> dict[str, Any]:
    host = HostOptimizer(parameters(torch.bfloat16), library.adamw, lr=LR)
    pair = [
        Contender(FUSED, repeated(_warm(_fused()).step), peer=True),
        Contender(HOST, repeated(_warm(host).step)),
    ]
    scene = f"AdamW, host step with bf16 copy, threads: {threads}"
    head = {"scene": scene, "rule": "adamw", "base": FUSED, "threads": threads}
    return head | summary(measure(pair, effort, always=(FUSED,)), FUSED)
