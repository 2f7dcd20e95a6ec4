"""Owns SCENES, the lists of tensors of the GPU benches, and the cells that are measured on them, most telling first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

from ..case import Case
from ..rules import RULES
from ..sizes import SIZES, Shape, Size

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _size(name: str, what: str, *shapes: Shape) -> Size:
    return Size(name, what, shapes)


SCENES: Final[Mapping[str, Size]] = {
    s.name: s
    for s in (
        _size("2^27", "one tensor of 2^27 elements", (1 << 27,)),
        Size("gpt2", "GPT-2 small, 148 tensors, 124 M elements", SIZES["gpt2"].shapes),
        _size("1000x16384", "1000 tensors of 16,384", *[(16384,)] * 1000),
        _size("L2", "10 tensors of 100,000: stays in the L2 cache", *[(100_000,)] * 10),
        _size("5000x256", "5000 tensors of 256", *[(256,)] * 5000),
    )
}
RANDOM20: Final = "random15"  # an update of 15 operations, 20 instructions with its moving average

# scene, rule, dtype
CELLS: Final = (
    *(("2^27", rule, "float32") for rule in ("powersign", "adam", "lion", RANDOM20)),
    *(("gpt2", rule, "float32") for rule in ("adam", "powersign")),
    *(("5000x256", rule, "float32") for rule in ("adam", "powersign")),
    *(("L2", rule, "float32") for rule in ("powersign", "adam", RANDOM20)),
    *(("1000x16384", rule, "float32") for rule in ("adam", "powersign")),
    *(("2^27", rule, "bfloat16") for rule in ("powersign", "adam", "lion", RANDOM20)),
    ("gpt2", "adam", "bfloat16"),
    ("2^27", "addsign", "float32"),
    ("2^27", "random40", "float32"),
)


def shrunk(size: Size) -> Size:
    """For the dry run: up to 4 tensors of up to 4096 elements."""
    return Size(size.name, size.what, tuple((min(4096, math.prod(s)),) for s in size.shapes[:4]))


def case(size: Size, rule: str, dtype: str, device: str) -> Case:
    """Tensors of one dtype, states included, and states as after a few steps."""
    chosen, kind = RULES[rule], DTYPES[dtype]
    generator = torch.Generator(device).manual_seed(0)
    lists: dict[str, list[torch.Tensor]] = {"p": [], "g": [], "m": [], "v": []}
    for shape in size.shapes:
        p = torch.empty(shape, device=device, dtype=kind).uniform_(-1, 1, generator=generator)
        g = torch.empty(shape, device=device, dtype=kind).uniform_(-0.1, 0.1, generator=generator)
        lists["p"].append(p.requires_grad_())
        p.grad = g
        lists["g"].append(g)
        if "m" in chosen.states:
            lists["m"].append(g * 0.5)
        if "v" in chosen.states:
            lists["v"].append(g.square() * 0.01)
    return Case(chosen, lists["p"], lists["g"], {s: lists[s] for s in chosen.states})


def bytes_moved(size: Size, rule: str, dtype: str) -> int:
    """Read and written by one step."""
    return RULES[rule].bytes_per_element * size.elements * DTYPES[dtype].itemsize // 4
