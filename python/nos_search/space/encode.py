"""Owns the way back from rule text to tokens: it finds a string of a space whose text is the given expression.

Expressions are matched as syntax trees against the space's own templates, so only what the space can write is found; no
algebra is applied (g*2 and 2*g are different strings). Groups are tried as a chain: each group after the first takes
the output of the one before it on one side and a plain operand on the other. Spare groups become identity groups.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..errors import UsageError
from .base import Tokens
from .group import Group
from .space import Space


def encode(space: Space, text: str) -> Tokens:
    """Returns tokens whose text is the same expression as `text`. Raises UsageError when the space cannot write it."""
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
    """Returns the one spelling of a tree, with numbers as floats and square(x) as x**2."""

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
    """Returns the parts of `text` that stand where `template` has {0} and {1}, or None when it does not fit."""
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
    """Yields the strings of the first `count` groups whose last output is `text`."""
    for b, binary in enumerate(space.binary):
        sides = _split(space.token_text(binary), text)
        if sides is None:
            continue
        for u1, left in _arguments(space, sides[0]):
            if len(sides) == 1:
                yield from _place(space, count, left, None, (u1, 0, b))
                continue
            for u2, right in _arguments(space, sides[1]):
                yield from _place(space, count, left, right, (u1, u2, b))


def _arguments(space: Space, text: str) -> Iterator[tuple[int, str]]:
    """Yields each unary function that `text` can be the value of, by index, and its argument."""
    for index, token in enumerate(space.unary):
        inner = _split(space.token_text(token), text)
        if inner is not None:
            yield index, inner[0]


def _place(space: Space, count: int, left: str, right: str | None, functions: Tokens) -> Iterator[Tokens]:
    """Yields the strings whose group `count` has these operands and functions (u1, u2, b), with the groups before that
    it needs.

    `right` is None where keep-left drops it; then any token does.
    """
    plain = {_plain(ast.parse(space.token_text(token), mode="eval").body): k for k, token in enumerate(space.operands)}
    before = len(space.operands) + count - 2  # the output of the group before
    # Each is op1, the candidates for op2, and the text of the group before, which is None for the first group.
    choices: list[tuple[int, tuple[int, ...], str | None]] = []
    rights = tuple(range(len(space.operands))) if right is None else (plain[right],) if right in plain else ()
    if count == 1:
        if left in plain:
            choices.append((plain[left], rights, None))
    else:
        choices.append((before, rights, left))
        if right is not None and left in plain:
            choices.append((plain[left], (before,), right))
    for op1, candidates, inner in choices:
        for head in iter([()]) if inner is None else _groups(space, inner, count - 1):
            allowed = space.mask((*head, op1))
            op2 = next((token for token in candidates if allowed[token]), None)
            if op2 is not None:
                tokens = (*head, *Group(op1, op2, *functions))
                if space.mask(tokens[:-1])[functions[-1]]:
                    yield tokens
