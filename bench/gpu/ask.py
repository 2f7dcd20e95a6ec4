"""What the questions of the probe share: tensors, captures, times, and the two ways of having no answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

import nos_ext

RULE: Final = "g * exp(sign(g) * sign(m))"
Lists = tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]


class NeedsDevice(Exception):
    """The question cannot be asked on the CPU."""


class Wrong(Exception):
    """The answer shows a fault; the text says which."""


def lists(sizes: Sequence[int], device: str, dtype: torch.dtype = torch.float32) -> Lists:
    """Parameters, gradients and one state of these sizes."""
    p, g, m = ([torch.full((n,), x, device=device, dtype=dtype) for n in sizes] for x in (1.0, 0.5, 0.25))
    return p, g, m


def stepper(p: Any, g: Any, m: Any) -> Callable[[], None]:
    """PowerSign on these lists."""
    program = nos_ext.compile_rule(RULE)
    return lambda: nos_ext.apply_rule(program, p, g, [m], lr=1e-6)


def graph_of(step: Callable[[], object], device: str, **options: Any) -> Any:
    """The CUDA graph of one step."""
    if device != "cuda":
        raise NeedsDevice
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **options):
        step()
    return graph


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits, wherever the tensors are; NaNs are one value."""
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    a, b = a.cpu(), b.cpu()
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


def microseconds(call: Callable[[], object], device: str, calls: int) -> tuple[float, float]:
    """Of one call: until the device is done, and until the host may go on. The best of five rounds."""
    best = [float("inf")] * 2
    call()
    for _ in range(5):
        wait(device)
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        host = time.perf_counter() - begin
        wait(device)
        done = time.perf_counter() - begin
        best = [min(a, b / calls * 1e6) for a, b in zip(best, (done, host), strict=True)]
    return best[0], best[1]


def times(call: Callable[[], object], device: str, calls: int = 200) -> str:
    done, host = microseconds(call, device, calls if device == "cuda" else 2)
    return f"{done:.1f} us (host {host:.1f})"


def table(rows: Sequence[str]) -> str:
    return "".join("\n  " + row for row in rows)
