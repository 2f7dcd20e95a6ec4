"""Owns the way back from rule text to tokens: finds a string of a space whose text is the given expression.

Expressions are matched as syntax trees against the space's own templates, so only what the space can write is found;
no algebra is applied (g*2 and 2*g are different strings). Groups are tried as a chain: each group after the first
takes the output of the one before it on one side and a plain operand on the other. Spare groups become identity
groups.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..errors import UsageError
from .space import GROUP, Space, Tokens


def encode(space: Space, text: str) -> Tokens:
    """Tokens t with `space.text(t)` the same expression as `text`; UsageError when the space cannot write it."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise UsageError(f"rule {text!r} is not an expression: {error.msg}") from None
    for tokens in _groups(space, _plain(tree), space.groups):
        if _plain(ast.parse(space.text(tokens), mode="eval").body) == _plain(tree):
            return tokens
    raise UsageError(
        f"rule {text!r} cannot be written in the space {space.vocabulary!r} with {space.groups} group(s); "
        "try more groups or another vocabulary"
    )


def _plain(tree: ast.expr) -> str:
    """One spelling per tree: numbers as floats, square(x) as x**2."""

    class Plain(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            return ast.Constant(float(node.value)) if isinstance(node.value, (int, float)) else node

        def visit_Call(self, node: ast.Call) -> ast.expr:
            self.generic_visit(node)
            if isinstance(node.func, ast.Name) and node.func.id == "square" and len(node.args) == 1:
                return ast.BinOp(node.args[0], ast.Pow(), ast.Constant(2.0))
            return node

    return ast.unparse(Plain().visit(ast.parse(ast.unparse(tree), mode="eval").body))


def _split(template: str, text: str) -> tuple[str, ...] | None:
    """The parts of `text` that stand where `template` has {0} and {1}; None when it does not fit."""
    holes: dict[str, str] = {}

    def fits(pattern: ast.AST, tree: ast.AST) -> bool:
        if isinstance(pattern, ast.Name) and pattern.id in ("_0", "_1"):
            if not isinstance(tree, ast.expr):
                return False
            holes[pattern.id] = ast.unparse(tree)
            return True
        if type(pattern) is not type(tree):
            return False
        for (_, a), (_, b) in zip(ast.iter_fields(pattern), ast.iter_fields(tree), strict=True):
            pairs = list(zip(a, b, strict=False)) if isinstance(a, list) and isinstance(b, list) else [(a, b)]
            if isinstance(a, list) and len(a) != len(b):
                return False
            if not all(fits(x, y) if isinstance(x, ast.AST) else x == y for x, y in pairs):
                return False
        return True

    pattern = _plain(ast.parse(template.format("_0", "_1"), mode="eval").body)
    if fits(ast.parse(pattern, mode="eval").body, ast.parse(text, mode="eval").body):
        return tuple(holes[name] for name in sorted(holes))
    return None


def _groups(space: Space, text: str, count: int) -> Iterator[Tokens]:
    """Strings of the first `count` groups whose last output is `text`."""
    start = (count - 1) * GROUP
    positions = space.positions[start : start + GROUP]
    for b, binary in enumerate(positions[4].tokens):
        sides = _split(space.token_text(binary), text)
        if sides is None:
            continue
        for left in _operands(space, positions[2].tokens, sides[0]):
            spare = positions[0].names.index("1"), 0  # the dead side of keep-left: operand 1, or an earlier output
            rights = _operands(space, positions[3].tokens, sides[1]) if len(sides) == 2 else iter([(0, "")])
            for right in rights:
                yield from _place(space, count, (left, right), b, spare)


def _operands(space: Space, unary: tuple[object, ...], text: str) -> Iterator[tuple[int, str]]:
    for index, token in enumerate(unary):
        inner = _split(space.token_text(token), text)  # type: ignore[arg-type]
        if inner is not None:
            yield index, inner[0]


def _place(
    space: Space, count: int, sides: tuple[tuple[int, str], tuple[int, str]], b: int, spare: tuple[int, int]
) -> Iterator[Tokens]:
    """Chooses operands for both sides of group `count`, the earlier groups included, and keeps what the masks allow."""
    base = {
        _plain(ast.parse(space.token_text(token), mode="eval").body): index
        for index, token in enumerate(space.positions[0].tokens)
    }
    earlier = space.base_operands + count - 2
    (u1, left), (u2, right) = sides
    choices: list[tuple[int, int, str]] = []
    dead = not right
    if count == 1:
        if left in base:
            rights = spare if dead else (base.get(right, -1),)
            choices = [(base[left], r, "") for r in rights if r >= 0]
    else:
        if dead:
            choices.append((earlier, spare[0], left))
        else:
            if right in base:
                choices.append((earlier, base[right], left))
            if left in base:
                choices.append((base[left], earlier, right))
    for op1, op2, inner in choices:
        heads: Iterator[Tokens] = iter([()]) if count == 1 else _groups(space, inner, count - 1)
        for head in heads:
            tokens = (*head, op1, op2, u1, u2, b)
            if all(space.mask(tokens[:k])[tokens[k]] for k in range(len(head), len(tokens))):
                yield tokens
