"""Owns the printing of rules as stand-alone PyTorch optimizers: one source file that imports math and torch only.

The file has the rule as a function `update`, written as in the rule's own text, and an optimizer class around it. Ops
whose torch expression is more than one call come from the op table as small functions in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .definition import RESERVED, Rule
from .errors import RuleError
from .expr import Expr
from .format import Layout, Text, node_text, number_text, to_text
from .table import OPS, RANDOM

_PLAIN: Final = frozenset(("add", "sub", "mul", "div", "neg"))  # Python's operators on tensors mean the same
_TAKEN: Final = frozenset(
    "params lr self closure maximize seed total_steps step torch math update random _number _uniform _normal".split()
)

_RANDOM_SOURCE: Final = '''

def _philox(p, seed, step, tensor, site):
    """Philox4x32-10 words, one per element of p in memory order; int64 holds the unsigned 32-bit arithmetic."""
    mask = 0xFFFFFFFF
    q = torch.arange((p.numel() + 3) // 4, dtype=torch.int64, device=p.device)
    c = [q & mask, (q >> 32 & 0xFFFFF) | site << 20, torch.full_like(q, tensor), torch.full_like(q, step & mask)]
    k0, k1 = seed & mask, seed >> 32 & mask

    def multiply(a, b):  # high and low half of a * b, without overflow of int64
        high, low = a * (b >> 16), a * (b & 0xFFFF)
        middle = (low >> 16) + (high & mask)
        return ((high >> 32) + (middle >> 16 >> 16) << 16) + (middle >> 16 & 0xFFFF), a
'''


def to_pytorch(rule: Rule) -> str:
    """Source of a module with the optimizer. RuleError if a name of the rule is one that torch optimizers use."""
    return _Export(rule).source()


def class_name(name: str) -> str:
    """`power_sign` as PowerSign."""
    text = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return text if text[:1].isalpha() else f"Rule{text}"
