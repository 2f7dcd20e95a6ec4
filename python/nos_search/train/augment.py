"""Owns augmentation: in each step every image of the batch is moved by a few pixels, and mirrored or not where its
class is that of its mirror image (`Task.mirrors`).

How far an image moves, and whether it is mirrored, is drawn by seed and step alone, on the CPU. So trainings of equal
seed see the same images whatever their rule, engine or device is, as they see the same batches. What comes in at an
edge is 0, the mean of all pixels, as convolutions see it beyond the edge. Validation and test images stay as they are.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .seeds import derive_seed

_PART: Final = 8  # of a side, that an image may move either way: 4 pixels of 32, which is the usual amount


def reach(side: int) -> int:
    """Returns how many pixels an image of that height or width may move."""
    return max(1, side // _PART)


def augmented(images: Tensor, *, mirrors: bool, seed: int, steps: range) -> Tensor:
    """Returns the images (n, channels, height, width) of the batches of these steps, counted from 0 and as many in
    each, as they are seen there."""
    count, _, height, width = images.shape
    up, left = reach(height), reach(width)
    limits = (2 * up + 1, 2 * left + 1, 2)
    drawn = torch.cat([_draw(limits, count // len(steps), derive_seed(seed, "augment", step)) for step in steps], 1)
    tops, lefts, mirrored = drawn.to(images.device)
    # every place that an image can be seen at, without copying any: (n, channels, tops, lefts, height, width)
    places = F.pad(images, (left, left, up, up)).unfold(2, height, 1).unfold(3, width, 1)
    moved = places[torch.arange(count, device=images.device), :, tops, lefts]
    if mirrors:
        moved = torch.where(mirrored.bool()[:, None, None, None], moved.flip(3), moved)
    return moved.contiguous()


def _draw(limits: tuple[int, ...], count: int, seed: int) -> Tensor:
    """Returns (limits, count) whole numbers below each of the limits."""
    random = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(limit, (count,), generator=random) for limit in limits])
