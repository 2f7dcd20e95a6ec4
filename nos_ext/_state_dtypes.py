"""Owns the dtypes that states can have, and how a state is stored in one of them.

int8 stands for codes of one byte, with a scale for every block of elements (docs/numerics.md). A state that is never
negative has codes without a sign, of dtype uint8.
"""

from __future__ import annotations

from typing import Any, Final

from ._numbers import shown
from .rule import MatrixProgram, Program

SCALE: Final = ".scale"  # the key of a state's scales is the state's name with this behind it
SCALE_BLOCK: Final = 256  # elements, in the order of memory
_NAMES: Final = ("bfloat16", "int8")


def checked_state_dtype(value: Any) -> str | None:
    """Returns the name of a state_dtype, which may be given as a dtype of torch, too. ValueError says what there is."""
    if value is None:
        return None
    name = str(value).removeprefix("torch.")
    if name not in _NAMES:
        raise ValueError(
            f"state_dtype is {shown(value)}; pass 'bfloat16', 'int8', or None for float32 (float64 beside float64 "
            "parameters)"
        )
    return name


def stored_as(program: Program | MatrixProgram, state_dtype: str | None) -> dict[str, str | None]:
    """Returns the name of the dtype of each state of a rule; None leaves it to the parameter. Numbers per tensor, which
    take no memory, are left to it always."""
    unsigned = program.non_negative_states if state_dtype == "int8" else ()
    out: dict[str, str | None] = {}
    for name in program.state_names:
        out[name] = "uint8" if name in unsigned else state_dtype
        if name in program.per_tensor_states:
            out[name] = None
    return out


def scale_count(elements: int) -> int:
    """Returns how many scales a quantized state of so many elements has."""
    return -(-elements // SCALE_BLOCK)
