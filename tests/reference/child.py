"""What the layers of a child compute, one line each, by torch in float64 and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Arrays = list[np.ndarray]
Weights = Iterator[Tensor]
MOMENTUM = 0.5


def gru(h: Tensor, tensors: list[Tensor]) -> Tensor:
    start = h.new_zeros(1, len(h), len(tensors[2]) // 3)
    outputs: Tensor = torch.gru(h, start, tensors, True, 1, 0.0, True, False, True)[0]
    return outputs


LAYERS: dict[str, Callable[[Tensor, Weights, Weights], Tensor]] = {
    "convolution": lambda h, w, _: F.relu(F.conv2d(h, next(w), next(w), padding=1)),
    "norm_pool": lambda h, w, r: F.max_pool2d(F.batch_norm(h, next(r), next(r), next(w), next(w), True, MOMENTUM), 2),
    "linear": lambda h, w, _: F.linear(h.flatten(1), next(w), next(w)),
    "relu": lambda h, *_: F.relu(h),
    "embedding": lambda h, w, _: F.embedding(h, next(w)),
    "gru": lambda h, w, _: gru(h, [next(w) for _ in range(4)]),
    "text_gru": lambda h, w, _: gru(F.embedding(h, next(w)), [next(w) for _ in range(4)]),
    "position_linear": lambda h, w, _: F.linear(h, next(w), next(w)),
}


def loss_and_gradients(
    layers: Sequence[tuple[str, int]], weights: Arrays, running: Arrays, x: np.ndarray, y: np.ndarray,
    dtype: torch.dtype = torch.float64,
) -> tuple[float, Arrays, Arrays]:  # fmt: skip
    """The mean loss over targets that are not negative, its gradients, and the running statistics after the batch."""
    leaves = [torch.tensor(w, dtype=dtype, requires_grad=True) for w in weights]
    after = [torch.tensor(r, dtype=dtype) for r in running]
    h = torch.from_numpy(x)
    h = h.to(dtype) if h.is_floating_point() else h.long()
    w, r = iter(leaves), iter(after)
    for name, _ in layers:
        h = LAYERS[name](h, w, r)
    loss = F.cross_entropy(h.flatten(0, -2), torch.from_numpy(y).long().flatten().clamp(min=-1), ignore_index=-1)
    loss.backward()
    return (
        float(loss.detach()),
        [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None],
        [r.numpy() for r in after],
    )
