"""Owns what counts as a number among arguments: Python's and NumPy's numbers. They are stored as Python's. Text and
everything else is refused.

Works without torch and without NumPy: NumPy's scalars are registered as `numbers.Real`.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

# The largest number of a step, as random draws are keyed by 32 bits of it.
LAST_STEP: Final = 2**32 - 1


def shown(value: Any) -> str:
    """Writes a value for messages, in one line and shortened where it is long. Of a tensor it writes the kind and no
    values, as there may be no memory that torch could read."""
    text = " ".join(_text(value).split())
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _text(value: Any) -> str:
    if _is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        shape = "" if getattr(value, "is_nested", False) else f" of shape {tuple(value.shape)}"
        return f"a {dtype} {type(value).__name__}{shape} on {value.device}"
    if _holds_tensors(value):
        return f"a {type(value).__name__} that holds tensors"
    try:
        return repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return f"an integer of {value.bit_length()} bits"


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _holds_tensors(value: Any) -> bool:
    """Tells whether a list, tuple, set or dict has a tensor in it, at any depth."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if _is_tensor(one):
            return True
        if isinstance(one, list | tuple | set | frozenset | dict) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one
    return False


def plain(value: Any) -> Any:
    """Returns the Python number that `value` stands for. Anything that is not a number comes back as it is."""
    if type(value) in (int, float, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return value


def number(name: str, value: Any, wanted: str = "a number") -> float:
    """Returns `value` as a float.

    Args:
        name: of the argument, for the message.
        value: what was given.
        wanted: what to pass instead, for the message.

    Raises:
        TypeError: it is no number. Text is none either, also where it spells one.
        ValueError: it is too large for a float.
    """
    if type(value) is float:  # the other kinds take a microsecond to recognise
        return value
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {shown(value)}; pass {wanted}{_spelt(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {shown(value)}, which is too large for a float; pass a smaller number") from None


def finite(name: str, value: Any, wanted: str = "a finite number") -> float:
    """Returns `value` as a float, which must be neither NaN nor infinite. Everything else is as in `number`."""
    found = number(name, value, wanted)
    if not math.isfinite(found):
        raise ValueError(f"{name} is {shown(value)}; pass {wanted}")
    return found


def positive(name: str, value: Any, wanted: str = "a positive number") -> float:
    """Returns `value` as a float, which must be above 0 and finite. Everything else is as in `number`."""
    found = finite(name, value, wanted)
    if not found > 0:
        raise ValueError(f"{name} is {shown(value)}; pass {wanted}")
    return found


def integer(name: str, value: Any, low: int, high: int, wanted: str | None = None) -> int:
    """Returns `value` as an int from `low` to `high`; 3.0 is accepted for 3. Everything else is as in `number`.

    Raises:
        TypeError: it is no number.
        ValueError: it is no whole number, or out of range.
    """
    wanted = wanted or f"an integer from {_bound(low)} to {_bound(high)}"
    value = plain(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is {shown(value)}; pass {wanted}{_spelt(value)}")
    if value != value or not low <= value <= high or value != int(value):
        raise ValueError(f"{name} is {shown(value)}; pass {wanted}")
    return int(value)


def listed(name: str, values: Any, wanted: str) -> list[Any]:
    """Returns a list of what is in `values`. TypeError tells of what is no list, such as one tensor."""
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping) or hasattr(values, "dtype"):
        raise TypeError(f"{name} is a {type(values).__name__}; pass {wanted}")
    return list(values)


def flag(name: str, value: Any) -> bool:
    """Returns `value` as a bool. 0, 1 and NumPy's bools are accepted; TypeError tells of anything else."""
    if isinstance(value, bool):
        return value
    scalar = isinstance(value, numbers.Integral) or (type(value).__module__ == "numpy" and value.shape == ())
    if scalar and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name} is {shown(value)}; pass True or False")


def _spelt(value: Any) -> str:
    """Returns a remedy for text that spells a number, which configuration files produce."""
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return f": float({value!r})"


def _bound(value: int) -> str:
    return f"2**{value.bit_length()} - 1" if value > 2**31 and value & (value + 1) == 0 else str(value)
