"""What a call costs when there is nearly nothing to update: steps on tensors of 16 elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .case import Arena
from .harness import Effort
from .peers import LIMIT, native
from .rules import RULES
from .sizes import Size
from .update import cell

COUNTS: Final = (1, 10, 148, 1000)
RULE_NAMES: Final = ("sgd", "momentum", "powersign", "adam")
LEFT_OUT: Final = (LIMIT, "torch.compile", "numexpr", *native.LABELS)


def run(effort: Effort, threads: int) -> Iterator[dict[str, Any]]:
    for count in COUNTS:
        arena = Arena(Size(f"{count} x 16", f"{count} tensors of 16", ((16,),) * count))
        for name in RULE_NAMES:
            yield cell(arena, RULES[name], effort, threads, LEFT_OUT)
