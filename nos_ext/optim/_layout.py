"""Owns parameters that have gaps in memory, as slices of larger tensors have. The engine updates a dense copy of each.

The copy has the layout that torch gives `zeros_like(param)`, and so have the states. A parameter that has several
elements in one place, as an expanded one has, is refused, as torch refuses to write to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .._memory import dimensions, has_memory


def like(tensor: torch.Tensor, dtype: torch.dtype | None = None, device: torch.device | None = None) -> torch.Tensor:
    """Returns new memory in the layout that belongs to `tensor`, which is its own layout where it is dense."""
    return torch.empty_like(tensor, dtype=dtype, device=device, memory_format=torch.preserve_format)


def has_gaps(tensor: torch.Tensor) -> bool:
    """Tells whether the elements do not fill one stretch of memory, in whatever order of the dimensions."""
    if tensor.layout != torch.strided or tensor.is_contiguous() or tensor.numel() == 0:
        return False
    expected = 1
    for stride, size in dimensions(tensor):
        if stride != expected:
            return True
        expected *= size
    return False


def check_places(owner: str, index: int, tensor: torch.Tensor) -> None:
    """Raises RuntimeError if several elements of parameter `index` are in one place."""
    if overlaps_itself(tensor):
        raise RuntimeError(
            f"{owner} cannot write to parameter {index}: its shape {tuple(tensor.shape)} with strides "
            f"{tensor.stride()} has several elements in one place, as expand() makes them; pass "
            "nn.Parameter(w.clone())"
        )


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Tells whether several elements of a dense tensor are in one place."""
    reach = 0  # distance from the first to the last element over the dimensions so far
    for stride, size in dimensions(tensor):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


class DenseCopies:
    """DenseCopies has a dense copy of each parameter that has gaps.

    Args:
        owner: name of the optimizer, for messages.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # number of the parameter -> parameter, copy
        self.unread: set[int] = set()  # parameters that no rule reads, so that they are copied back only

    def _home(self, param: torch.Tensor) -> torch.device:
        """Returns where the copy of a parameter is."""
        return param.device

    def _copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        to.copy_(source)

    def dense(self, i: int, param: torch.Tensor) -> torch.Tensor:
        """Returns what the engine gets for parameter i: the parameter itself where it has no gaps, or else its copy,
        filled."""
        if not has_gaps(param) or not has_memory(param):
            self.pairs.pop(i, None)
            return param
        check_places(self._owner, i, param)
        with torch.inference_mode(False), torch.no_grad():
            copy = like(param).copy_(param)
        self.pairs[i] = param, copy
        return copy

    def check_shared(self, params: Iterable[tuple[int, torch.Tensor]]) -> None:
        """Raises ValueError if a parameter that has gaps shares memory with another one, since one update would be
        lost."""
        by_memory = defaultdict(list)
        for i, param in params:
            if type(param) in (torch.Tensor, torch.nn.Parameter) and param.numel() and has_memory(param):
                by_memory[param.device, param.untyped_storage().data_ptr()].append((i, param))
        for sharing in by_memory.values():
            if len(sharing) > 1 and any(i in self.pairs for i, _ in sharing):
                self._check_elements(sharing)

    def _check_elements(self, sharing: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Marks the bytes of every parameter in a map of their memory. Bytes are marked, as views of one buffer may
        differ in dtype."""
        first = sharing[0][1]
        taken = torch.zeros(first.untyped_storage().nbytes(), dtype=torch.bool, device=first.device)
        for i, param in sharing:
            size = param.element_size()
            strides = [stride * size for stride in param.stride()]
            own = taken.as_strided((*param.shape, size), (*strides, 1), param.storage_offset() * size)
            if own.any():
                others = ", ".join(str(k) for k, _ in sharing if k != i)
                raise ValueError(
                    f"{self._owner} cannot write to parameter {i}: it shares memory with parameter {others}, and one "
                    "of the updates would be lost; pass each element once, or clone the parameter"
                )
            own.fill_(True)

    def fill(self, grads: Sequence[Any]) -> bool:
        """Copies the parameters that have a gradient in. Returns False if one has become another tensor, so that the
        lists must be made anew."""
        with torch.no_grad():
            for i, (param, copy) in self.pairs.items():
                same_kind = param.shape == copy.shape and param.dtype == copy.dtype and self._home(param) == copy.device
                if not same_kind or not has_memory(param):
                    return False
                if grads[i] is not None and i not in self.unread:
                    self._copy(copy, param)
        return True

    def write_back(self, grads: Iterable[Any]) -> None:
        """Copies the updated values of those that have a gradient back, as in-place operations of torch do."""
        given = list(grads)
        with torch.no_grad():
            for i, (param, copy) in self.pairs.items():
                if given[i] is not None:
                    self._copy(param, copy)
