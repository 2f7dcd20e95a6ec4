"""Owns Layout, which decides which values of a rule get a statement of their own, and in which order they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..expr import Expr, postorder, use_counts

INLINE: Final = 24  # an expression of more operations gets a line of its own


class Layout:
    """A Layout decides which nodes get a line, under which names and in which order.

    Values that are used more than once and very long expressions get a line. The new value of a state gets a line of
    the form `m = ...` if every use of the old m can come before it; otherwise it moves into the return, or is called
    `m_new`.
    """

    def __init__(
        self, outputs: Sequence[Expr], state_names: Sequence[str], taken: frozenset[str], limit: int = INLINE
    ) -> None:
        self._limit = limit
        self.order = postorder(outputs)
        self.names: dict[Expr, str] = {}
        self.statements: list[Expr] = []
        self._outputs = outputs
        self._taken = {*taken, *state_names}
        self._uses = use_counts(self.order, outputs)
        # The name of each node that may take the name of the leaf that it replaces.
        self._own: dict[Expr, str] = {}
        for node, name in zip(outputs, ["p", *state_names], strict=True):
            if node.args:
                self._own.setdefault(node, name)
        self._shared = {node for node in self.order if self._uses[node] > 1 and not trivial(node)}
        inline: set[Expr] = {outputs[0]}  # outputs that are written in the return
        renamed: set[Expr] = set()  # outputs that cannot take the name of their leaf
        while True:
            blocked = self._schedule(inline, renamed)
            if blocked is None:
                break
            (renamed if self._uses[blocked] > 1 else inline).add(blocked)
        self._choose_names(renamed)

    def _schedule(self, inline: set[Expr], renamed: set[Expr]) -> Expr | None:
        """Orders the lines. An output whose old value is still needed when its turn comes is returned as blocked."""
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
        """Finds the nodes with a line of their own, and what lines and old values the expression of each node reads."""
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


def trivial(node: Expr) -> bool:
    """Tells whether an expression reads better repeated than named, as leaves and 1 - beta do."""
    return not node.args or (node.scalar and not any(x.args for x in node.args))
