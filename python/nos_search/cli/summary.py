"""Owns how a run's leaderboard is printed, as run, resume and show do."""

from __future__ import annotations

from typing import Any

from ..escape import line
from ..show.leaderboard import shown_rungs
from ..task.score import SHOWN
from .output import as_json, emit, number, table


def print_summary(data: dict[str, Any], *, top: int, json: bool) -> None:
    """Prints `data`, which `show.leaderboard.summary` gives. The table has `top` rows at most; JSON has all."""
    if json:
        return emit(as_json(data))
    saved = data["score"] == "bits-saved"
    head = (
        f"{data['folder']}: task {data['task']}, {data['strategy']}, seed {data['seed']}"
        f"; the reward is {SHOWN[data['score']].reward}",
        f"trials {data['trials']}: trained {data['trained']} (diverged {data['diverged']}), "
        f"duplicates {data['duplicates']}, rejected {data['rejected']}, failed {data['failed']}; "
        f"families {data['families']}"
        + (f", in flight {data['running']}" if data["running"] and data["going_on"] else ""),
    )
    higher = data["rungs"]
    rows = [
        [
            str(row["rank"]),
            f"{row['reward']:.4f}",
            *shown_rungs(row["promoted"], row["ranks"], higher),
            *(["-" if row["bits"] is None else f"{row['bits']:.3f}"] if saved else []),
            number(row["lr"]),
            str(row["trials"]),
            str(row["duplicates"]),
            "-" if row["members"] is None else str(row["members"]),
            row["rule"],
        ]
        for row in data["leaderboard"][:top]
    ]
    columns = ["rank", "reward", *higher, *(["bits"] if saved else []), "lr", "trials", "duplicates", "members", "rule"]
    body = table(columns, rows) if rows else "no rule has been trained to the end yet"
    return emit("\n".join([*map(line, head), body]))
