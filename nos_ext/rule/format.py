"""Owns the printing of rules as text that compiles back to the same program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .definition import RESERVED, Rule
from .expr import Expr, postorder
from .table import OPS

INLINE: Final = 24  # operations in one expression, above which a value gets a line of its own
_REPR_LIMIT: Final = 500  # characters of an operand in the repr of an expression

# binding strength of Python's syntax
_COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, ATOM = range(6)
_STRENGTH: Final = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT, "**": _POWER}
_LEAF_NAMES: Final = {"param": "p", "grad": "g", "step": "t", "total": "T"}
Text = tuple[str, int]  # source and binding strength


def number_text(value: float) -> str:
    """The shortest source of a number."""
    if value < 0 or (value == 0 and math.copysign(1.0, value) < 0):
        return "-0.0" if value == 0 else f"-{number_text(-value)}"
    for name, known in (("e", math.e), ("pi", math.pi), ("inf", math.inf)):
        if value == known:
            return name
    return str(int(value)) if value.is_integer() and value < 1e16 else repr(value)


def _leaf(node: Expr) -> Text:
    if node.op == "constant":
        text = number_text(node.value)  # type: ignore[arg-type]
        return text, _UNARY if text[0] == "-" else ATOM
    return _LEAF_NAMES.get(node.op) or str(node.value), ATOM


def _within(text: Text, strength: int) -> str:
    return text[0] if text[1] >= strength else f"({text[0]})"


def node_text(node: Expr, args: Sequence[Text], *, infix: bool | None = None) -> Text:
    """The source of one node around the sources of its operands; `infix` says whether operators may be used."""
    if not node.args:
        return _leaf(node)
    op = node.op
    if infix is None:
        # Python itself would compute an operator between two numbers
        infix = not all(x.op == "constant" for x in node.args)
    symbol = OPS[op].symbol
    if infix and op == "neg":
        return f"-{_within(args[0], _UNARY)}", _UNARY
    if infix and op == "square":
        return f"{_within(args[0], ATOM)} ** 2", _POWER
    if infix and symbol and not (symbol == "**" and args[1][0] == "2"):
        strength = _STRENGTH.get(symbol, _COMPARE)
        if strength == _POWER:
            left, right = ATOM, _UNARY
        else:
            left, right = (_SUM, _SUM) if strength == _COMPARE else (strength, strength + 1)
        return f"{_within(args[0], left)} {symbol} {_within(args[1], right)}", strength
    texts = [text for text, _ in args]
    if op == "clip" and _is_negative_of(node.args[1], node.args[2]):
        del texts[1]
    return f"{op}({', '.join(texts)})", ATOM


def _is_negative_of(a: Expr, b: Expr) -> bool:
    if a.op == "constant" and b.op == "constant":
        return b.value > 0 and a.value == -b.value  # type: ignore[operator]
    return a.op == "neg" and a.args[0] is b


def expression_text(node: Expr) -> str:
    """Source of an expression without temporaries, shortened where it gets long; for people."""
    texts: dict[Expr, Text] = {}
    for x in postorder([node]):
        text, strength = node_text(x, [texts[arg] for arg in x.args])
        texts[x] = (text, strength) if len(text) <= _REPR_LIMIT else ("...", ATOM)
    return texts[node][0]


def to_text(rule: Rule) -> str:
    """The source of a function that compiles to the same program as the rule."""
    layout = Layout(rule.simplified, rule.state_names, RESERVED.union(rule.hyperparameters))
    arguments = ["p", "g", *rule.state_names, "*", "lr"]
    arguments += [f"{name}={number_text(value)}" for name, value in rule.hyperparameters.items() if value is not None]
    lines = [f"def {rule.name}({', '.join(arguments)}):"]
    texts: dict[Expr, Text] = {}
    for node in layout.order:
        text = node_text(node, [texts[x] for x in node.args])
        name = layout.names.get(node)
        texts[node] = text if name is None else (name, ATOM)
        if name is not None:
            layout.sources[node] = text[0]
    lines += [f"    {layout.names[node]} = {layout.sources[node]}" for node in layout.statements]
    lines.append(f"    return {', '.join(texts[x][0] for x in rule.simplified)}")
    return "\n".join(lines) + "\n"


class Layout:
    """Decides which nodes get a line, under which names and in which order.

    Values used more than once and very long expressions get a line. The new value of a state gets a line of the form
    `m = ...` if every use of the old m can come before it; otherwise it moves into the return, or is called `m_new`.
    """

    def __init__(
        self, outputs: Sequence[Expr], state_names: Sequence[str], taken: frozenset[str], limit: int = INLINE
    ) -> None:
        self._limit = limit
        self.order = postorder(outputs)
        self.names: dict[Expr, str] = {}
        self.statements: list[Expr] = []
        self.sources: dict[Expr, str] = {}
        self._outputs = outputs
        self._taken = {*taken, *state_names}
        self._uses: dict[Expr, int] = {}
        for node in [*outputs, *[x for n in self.order for x in n.args]]:
            self._uses[node] = self._uses.get(node, 0) + 1
        # the name that a node bears if it may take that of the leaf it replaces
        self._own: dict[Expr, str] = {}
        for node, name in zip(outputs, ["p", *state_names], strict=True):
            if node.args:
                self._own.setdefault(node, name)
        self._shared = {node for node in self.order if self._uses[node] > 1 and not _trivial(node)}
        inline: set[Expr] = {outputs[0]}  # outputs that stand in the return
        renamed: set[Expr] = set()  # outputs that cannot take the name of their leaf
        while True:
            blocked = self._schedule(inline, renamed)
            if blocked is None:
                break
            (renamed if self._uses[blocked] > 1 else inline).add(blocked)
        self._choose_names(renamed)

    def _schedule(self, inline: set[Expr], renamed: set[Expr]) -> Expr | None:
        """Order the lines; an output whose old value is still needed when its turn comes is returned as blocked."""
        lines, reads = self._lines(inline)
        final: set[Expr | str] = set().union(*[_read(x, lines, reads) for x in self._outputs])
        pending = [node for node in self.order if node in lines]
        waiting: set[Expr | str] = set(pending)
        self.statements = []
        while pending:
            blocked: Expr | None = None
            chosen: Expr | None = None
            for node in pending:
                if waiting.isdisjoint(reads[node]):
                    own = None if node in renamed else self._own.get(node)
                    if own is None or not (own in final or any(own in reads[x] for x in pending if x is not node)):
                        chosen = node
                        break
                    if blocked is None:
                        blocked = node
            if chosen is None:
                return blocked
            self.statements.append(chosen)
            waiting.remove(chosen)
            pending = [node for node in pending if node is not chosen]
        return None

    def _lines(self, inline: set[Expr]) -> tuple[set[Expr], dict[Expr, set[Expr | str]]]:
        """Nodes with a line of their own, and what the expression of each node reads: lines and old values."""
        lines: set[Expr] = set()
        size: dict[Expr, int] = {}
        reads: dict[Expr, set[Expr | str]] = {}
        for node in self.order:
            size[node] = bool(node.args) + sum([0 if x in lines else size[x] for x in node.args])
            reads[node] = set().union(*[_read(x, lines, reads) for x in node.args])
            wanted = node in self._own or size[node] > self._limit
            if node in self._shared or (wanted and node.args and node not in inline):
                lines.add(node)
        return lines, reads

    def _choose_names(self, renamed: set[Expr]) -> None:
        counter = 0
        for node in self.statements:
            own = self._own.get(node)
            if own is not None and node not in renamed:
                self.names[node] = own
                continue
            name = f"{own}_new" if own is not None else ""
            while not name or name in self._taken:
                counter += 1
                name = f"x{counter}"
            self._taken.add(name)
            self.names[node] = name


def _read(node: Expr, lines: set[Expr], reads: dict[Expr, set[Expr | str]]) -> set[Expr | str]:
    if node in lines:
        return {node}
    if node.op == "param":
        return {"p"}
    return {str(node.value)} if node.op == "state" else reads[node]


def _trivial(node: Expr) -> bool:
    """Whether repeating the expression reads better than naming it: leaves, 1 - beta."""
    return not node.args or (node.scalar and not any(x.args for x in node.args))
