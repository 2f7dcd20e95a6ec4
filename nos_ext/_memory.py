"""Owns the question whether the elements of a torch tensor are in memory. Works without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def has_memory(tensor: torch.Tensor) -> bool:
    """Tells whether the elements of a dense tensor are in its storage. From a storage that was resized to 0, torch
    would read all the same. A tensor without memory is left to the engine, which refuses it by name."""
    import torch

    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    if tensor.numel() == 0:
        return True
    last = tensor.storage_offset() + sum(stride * (size - 1) for stride, size in dimensions(tensor))
    return tensor.untyped_storage().nbytes() >= (last + 1) * tensor.element_size()


def is_emptied(tensor: torch.Tensor) -> bool:
    """Tells whether a plain tensor's storage has been resized to less than its elements need. torch would then read
    memory that is not there."""
    import torch

    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    return plain and not tensor.is_meta and not has_memory(tensor)


def dimensions(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """Returns (stride, size) of the dimensions that have more than one element, the innermost first."""
    return sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1)
