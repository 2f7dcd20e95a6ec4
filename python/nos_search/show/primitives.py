"""Owns the count of what rules are made of. It is read off their text, so that it works for every space."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "\u2212",
    ast.Mult: "\u00d7",
    ast.Div: "\u00f7",
    ast.Pow: "power",
    ast.Mod: "mod",
}


@lru_cache(maxsize=65536)
def primitives(text: str) -> frozenset[str]:
    """Returns the operands, functions and operators that occur in rule text; of a function, those in its lines."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a run folder may hold any text
        return frozenset()
    assigned = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(f"{node.func.id}()")
        elif isinstance(node, ast.BinOp):
            found.add(_OPERATORS.get(type(node.op), "?"))
        elif isinstance(node, ast.Name) and node.id not in assigned and node.id != "lr":
            found.add(node.id)
    return frozenset(found - {name.removesuffix("()") for name in found if name.endswith("()")})


def usage(texts: Sequence[str], *, periods: int, top: int) -> tuple[list[str], list[list[float]]]:
    """Returns the `top` most used primitives, and for each its share of the rules of each of up to `periods` equal
    periods."""
    periods = max(1, min(periods, len(texts)))
    total: Counter[str] = Counter()
    shares: list[Counter[str]] = []
    for k in range(periods):
        part = texts[k * len(texts) // periods : (k + 1) * len(texts) // periods]
        count: Counter[str] = Counter()
        for text in part:
            count.update(primitives(text))
        total.update(count)
        shares.append(Counter({name: value / max(1, len(part)) for name, value in count.items()}))
    names = [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:top]]
    return names, [[float(share[name]) for share in shares] for name in names]
