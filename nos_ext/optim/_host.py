"""Owns steps on the host for parameters on a device: the host's copies of parameters and gradients, and when they move.

A copy is pinned, and copying does not wait. The host waits once before the engine runs: for the gradients, and for the
parameters of the last step, whose copies it is about to overwrite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

from .._memory import has_memory
from ._grads import check_grad
from ._hollow import is_hollow
from ._layout import DenseCopies, check_places
from ._lists import StepLists
from ._shards import is_sharded

_HOST: Final = torch.device("cpu")


class Link:
    """A Link is the way between the host and the devices."""

    def is_away(self, tensor: torch.Tensor) -> bool:
        """Tells whether the tensor is on a device."""
        return tensor.device != _HOST and not is_hollow(tensor)

    def home(self, tensor: torch.Tensor) -> torch.device:
        """Returns where it is updated."""
        return _HOST if self.is_away(tensor) else tensor.device

    def buffer(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Returns new memory of the host in the layout that belongs to `tensor`."""
        return torch.empty_like(
            tensor, dtype=dtype, device=_HOST, pin_memory=True, memory_format=torch.preserve_format, requires_grad=False
        )

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        """Begins to copy, in the order of the device's current stream."""
        to.copy_(source, non_blocking=True)

    def mark(self, device: torch.device) -> Callable[[], Any]:
        """Returns a function that waits for what the device's current stream has begun so far."""
        return torch.accelerator.current_stream(device).record_event().synchronize


class HostCopies(DenseCopies):
    """HostCopies has copies on the host of parameters that are on a device, and of their gradients."""

    def __init__(self, owner: str, link: Link) -> None:
        super().__init__(owner)
        self._link = link
        self._grads: dict[int, torch.Tensor] = {}
        self._busy: set[torch.device] = set()  # those that copy
        self._unfinished: list[Callable[[], Any]] = []  # marks of copies to devices

    def dense(self, i: int, param: torch.Tensor) -> torch.Tensor:
        if not self._link.is_away(param) or not has_memory(param):
            return super().dense(i, param)
        check_places(self._owner, i, param)
        with torch.inference_mode(False), torch.no_grad():
            copy = self._link.buffer(param, param.dtype)
            self._copy(copy, param)
        self.pairs[i] = param, copy
        return copy

    def _home(self, param: torch.Tensor) -> torch.device:
        return self._link.home(param)

    def _copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        self._link.copy(to, source)
        self._busy.update(x.device for x in (to, source) if self._link.is_away(x))

    def write_back(self, grads: Iterable[Any]) -> None:
        super().write_back(grads)
        self._unfinished += map(self._link.mark, self._busy)
        self._busy.clear()

    def fetch(self, grads: list[Any]) -> None:
        """Replaces the gradients of its parameters in the list by copies, and waits for all copies."""
        with torch.inference_mode(False), torch.no_grad():
            for i, (param, copy) in self.pairs.items():
                grad, own = grads[i], self._grads.get(i)
                if grad is None or grad is own or not self._link.is_away(param) or not has_memory(grad):
                    continue
                check_grad(self._owner, i, grad)
                if own is None or own.dtype != grad.dtype or own.shape != copy.shape or own.stride() != copy.stride():
                    own = self._grads[i] = self._link.buffer(copy, grad.dtype)
                self._copy(own, grad)
                grads[i] = own
        self.wait()

    def wait(self) -> None:
        """Waits for all copies that have begun."""
        for finish in [*self._unfinished, *map(self._link.mark, self._busy)]:
            finish()
        self._unfinished.clear()
        self._busy.clear()


class HostLists(StepLists):
    """HostLists are `StepLists` whose tensors are all on the host. For parameters on a device they are copies."""

    _copies: HostCopies

    def __init__(self, link: Link, *arguments: Any) -> None:
        self._link = link
        super().__init__(*arguments)

    def _make_copies(self, owner: str) -> DenseCopies:
        return HostCopies(owner, self._link)

    def _home(self, param: Any) -> torch.device:
        return self._link.home(param)

    def _place(self, i: int, entry: dict[str, Any]) -> None:
        param = self._params[i]
        if is_sharded(param) and self._link.is_away(param):
            raise RuntimeError(
                f"{self._owner} cannot step on the host for parameter {i}: it is a DTensor on {param.device} with "
                f"placements {param.placements}; use RuleOptimizer(..., master_weights=True) for it"
            )
        super()._place(i, entry)

    def _prepared(self) -> list[Any] | None:
        grads = super()._prepared()
        if grads is not None:
            self._copies.fetch(grads)
        return grads

    def _divide(self, grads: list[Any], read: Callable[[int, int, Any], Any]) -> None:
        super()._divide(grads, read)
        self._copies.fetch(grads)  # of parameters that were placed just now

    def _repair(self, grads: list[Any]) -> bool:
        repaired = super()._repair(grads)
        self._copies.wait()
        return repaired
