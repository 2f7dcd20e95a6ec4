"""Owns the source of a torch optimizer for a rule, as the command export and a Python program get it."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SearchError
from ..escape import line
from ..rules import CompiledRule, parse_stored_rule
from ..store import Store
from .leaderboard import Row, best_rows

_NAME = "found_rule"  # names a rule that has no name; its class is FoundRule


def row_of_rank(store: Store, rank: int) -> Row:
    """Returns the rule of that rank in a run. Raises SearchError where there are not so many."""
    rows = best_rows(store)
    if not 1 <= rank <= len(rows):
        raise SearchError(f"{store.folder} has {len(rows)} rules trained to the end, none of rank {rank}")
    return rows[rank - 1]


def source_of_rank(store: Store, rank: int) -> str:
    """Returns the source of an optimizer for the rule of that rank; it says where the rule is from, and its default
    learning rate is the one that won."""
    row, config = row_of_rank(store, rank), store.config
    rate = "" if row.lr is None else f" at lr {row.lr:.6g}"
    comment = f"reward {row.reward:.4f} on {config['task']}{rate}, seed {config['seed']}"
    return source(parse_stored_rule(row.rule, store.folder, row.trial), [comment], lr=row.lr)


def source(rule: CompiledRule, comments: Sequence[str] = (), *, lr: float | None = None) -> str:
    """Returns the source of an optimizer for a rule, after comments. `lr` is the default of its learning rate."""
    if rule.is_update:
        comments = [f"update u = {rule.label}, p <- p - lr * u", *comments]
    named = rule.program.rule.replaced(name=_NAME) if rule.is_update else rule.program
    # A run folder may come from anyone: nothing in a comment can end the line that it stands on.
    return "".join(f"# {line(comment)}\n" for comment in comments) + named.to_pytorch(lr)
