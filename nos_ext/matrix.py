"""Owns what stands behind orthogonalize in a rule: Newton-Schulz steps, done by the library of the tensors, torch or
NumPy. Matrices of the same shape are computed together.

It is torch.optim.Muon's computation, with the roundings of that. NumPy has no bfloat16: there the products are computed
in float32, and every result is rounded to what bfloat16 can hold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .rule import MatrixProgram
    from .rule.matrix import NewtonSchulz

# So many elements go into one batch at most. On a device that bounds the memory that a step needs; on a processor,
# where a product of matrices is no faster for its neighbours, the batch stays in cache.
_ELEMENTS: Final = 1 << 19
_ELEMENTS_ON_A_DEVICE: Final = 1 << 26


def refusal(program: MatrixProgram, what: str) -> TypeError:
    """Makes the error for a rule with orthogonalize where `what` cannot have one."""
    return TypeError(
        f"rule '{program.name}' has orthogonalize, which {what} cannot do, as matrix products stand between its "
        "stages; use nos_ext.apply_rule, or nos_ext.optim.RuleOptimizer with capturable=False"
    )


def check_matrices(rule: str, params: Sequence[Any], chosen: Sequence[bool]) -> None:
    """Raises ValueError for a chosen parameter that is no matrix and has no more dimensions. `rule` is a name."""
    for i, (p, is_chosen) in enumerate(zip(params, chosen, strict=False)):
        shape = tuple(getattr(p, "shape", (1, 1)))
        if is_chosen and len(shape) < 2:
            raise ValueError(
                f"parameter {i} has shape {shape}, but rule '{rule}' orthogonalizes matrices; give it to a param group "
                "with another rule, as nos_ext.optim.groups does"
            )


def orthogonalize(tensors: Sequence[Any], how: NewtonSchulz) -> None:
    """Orthogonalizes each of the tensors in its place. They have two dimensions or more and are all of torch or all of
    NumPy; those without elements are left alone."""
    alike: dict[Any, list[Any]] = {}
    for x in tensors:
        if 0 not in x.shape:
            rows = x.shape[0]
            columns = 1
            for n in x.shape[1:]:
                columns *= n
            key = rows, columns, x.dtype, getattr(x, "device", "cpu")
            alike.setdefault(key, []).append(x)
    for (rows, columns, _, device), members in alike.items():
        scale = how.scale(rows, columns)
        most = _ELEMENTS if str(device) == "cpu" else _ELEMENTS_ON_A_DEVICE
        for batch in _batches(members, max(1, most // (rows * columns))):
            (_numpy if not _is_torch(batch[0]) else _torch)(batch, (rows, columns), how, scale)


def _batches(members: list[Any], size: int) -> Iterator[list[Any]]:
    for k in range(0, len(members), size):
        yield members[k : k + size]


def _is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _torch(tensors: list[Any], shape: tuple[int, int], how: NewtonSchulz, scale: float) -> None:
    import torch

    a, b, c = how.coefficients
    # Autocast would choose another dtype for the products.
    with torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
        x = torch.stack([t.reshape(shape) for t in tensors]).to(getattr(torch, how.dtype))
        is_tall = shape[0] > shape[1]
        if is_tall:
            x = x.mT
        x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=how.eps)
        for _ in range(how.steps):
            gram = x @ x.mT
            update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, update, x, beta=a)
        if is_tall:
            x = x.mT
        for t, result in zip(tensors, x.unbind(), strict=True):
            t.copy_(result.reshape(t.shape))
            if scale != 1.0:
                t.mul_(scale)


def _numpy(tensors: list[Any], shape: tuple[int, int], how: NewtonSchulz, scale: float) -> None:
    import numpy as np

    kind = np.float64 if how.dtype == "float64" else np.float32
    rounded = _to_bfloat16 if how.dtype == "bfloat16" else lambda x: x
    a, b, c = map(kind, how.coefficients)
    with np.errstate(all="ignore"):
        x = rounded(np.stack([t.reshape(shape) for t in tensors]).astype(kind))
        is_tall = shape[0] > shape[1]
        if is_tall:
            x = np.swapaxes(x, 1, 2)
        norm = rounded(np.sqrt(np.sum(x * x, axis=(1, 2), keepdims=True)))
        x = rounded(x / np.maximum(norm, kind(how.eps)))
        for _ in range(how.steps):
            gram = rounded(x @ np.swapaxes(x, 1, 2))
            update = rounded(b * gram + c * (gram @ gram))
            x = rounded(a * x + update @ x)
        if is_tall:
            x = np.swapaxes(x, 1, 2)
        for t, result in zip(tensors, x, strict=True):
            t[...] = result.reshape(t.shape) * scale


def _to_bfloat16(x: Any) -> Any:
    """Rounds float32 to the nearest numbers of bfloat16, and ties to even ones."""
    import numpy as np

    bits = np.ascontiguousarray(x).view(np.uint32)
    nearest = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, nearest.view(np.float32))
