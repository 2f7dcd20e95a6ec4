"""Owns what each value of a store may be. All that is read from a run folder goes through these tables, whoever wrote
it, so that nothing behind them meets a foreign type, a number out of range, or text that a terminal would obey.

Nothing is written that would not be read: Store.put goes through them, too.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..errors import UsageError
from ..gate import GATES
from ..rules import is_plain
from ..space import TextSpace, make_space
from . import relations
from .records import SCORE_STATUSES, STATES, STATUSES, Score, Trial

_LONG = 2**63 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,199}")
_PRINT = re.compile(r"[0-9a-f]{16}|")
# Control characters, what turns the direction of writing, and halves of characters.
_FOREIGN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FOREIGN_LINES = re.compile("(?![\t\n])" + _FOREIGN.pattern)
_POINTS = ("steps", "loss", "accuracy", "score", "val_loss")  # of a learning curve
_SWEEPS, _GATE = ({"lr", "steps", "accuracy"}, {"lr", "steps", "accuracy", "score"}), {"passed", "seconds", "value"}
_MOST_TEXT = 65536  # characters
_DEEPEST = 8


def clean(text: str) -> str:
    """Returns text of any origin, such as an error's message, as a store may hold it."""
    return _FOREIGN_LINES.sub("?", text)[:_MOST_TEXT]


@dataclass(frozen=True)
class ValueKind:
    """This says what a value may be. `sql` is how SQLite keeps it, where "JSON" is kept as text. `ok` tells whether a
    value is of this kind, and `wants` says the same in words, for errors."""

    sql: Literal["INTEGER", "REAL", "TEXT", "JSON"]
    wants: str
    ok: Callable[[Any], bool]


def _integer(low: int, high: int = _LONG) -> ValueKind:
    return ValueKind("INTEGER", f"an integer from {low} to {high}", lambda v: type(v) is int and low <= v <= high)


def _real(low: float, high: float, wants: str) -> ValueKind:
    return ValueKind("REAL", wants, lambda v: _number(v) and low <= v <= high)


def _text(wants: str, ok: Callable[[str], Any]) -> ValueKind:
    return ValueKind("TEXT", wants, lambda v: isinstance(v, str) and bool(ok(v)))


def _one_of(words: Sequence[str]) -> ValueKind:
    return _text(f"one of {', '.join(words)}", lambda v: v in words)


def _maybe(kind: ValueKind) -> ValueKind:
    return ValueKind(kind.sql, f"{kind.wants}, or nothing", lambda v: v is None or kind.ok(v))


def _json(wants: str, ok: Callable[[Any], bool]) -> ValueKind:
    return ValueKind("JSON", wants, ok)


# --- parts of JSON ---------------------------------------------------------------------------------------------------


def _number(value: Any) -> bool:
    return math.isfinite(value) if type(value) is float else _numbers([value])


def _numbers(values: Any) -> bool:
    """Tells whether it is a list of finite numbers."""
    if not isinstance(values, list) or not all(map(_is_number, {*map(type, values)})):
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:  # an integer beyond all floats
        return False


def _is_number(kind: type) -> bool:
    return issubclass(kind, (int, float)) and kind is not bool


@lru_cache(maxsize=4096)  # the same few names again and again
def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def _name(value: Any) -> bool:
    return isinstance(value, str) and _is_name(value)


def _line(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_TEXT and _FOREIGN.search(value) is None


def _plain(value: Any, deep: int = 0) -> bool:
    """Tells whether it is JSON of finite numbers, of text without foreign characters, and with names as keys."""
    if value is None or isinstance(value, bool) or _number(value):
        return True
    if isinstance(value, str):
        return len(value) <= _MOST_TEXT and _FOREIGN_LINES.search(value) is None
    if deep == _DEEPEST:
        return False
    if isinstance(value, list):
        return _numbers(value) or all(_plain(item, deep + 1) for item in value)
    if not isinstance(value, dict) or not all(map(_name, value)):
        return False
    inner = list(value.values())
    return _numbers(inner) or all(_plain(item, deep + 1) for item in inner)


def _map(value: Any) -> bool:
    return isinstance(value, dict) and _plain(value)


def _curve(value: Any) -> bool:
    if not isinstance(value, dict) or not all(map(_name, value)):
        return False
    points = [value[name] for name in _POINTS if name in value]
    if not all(map(_numbers, points)) or len({*map(len, points)}) > 1:
        return False
    sweep = value.get("sweep", [])
    if not isinstance(sweep, list) or not all(map(_rate, sweep)):
        return False
    return all(_plain(part) for name, part in value.items() if name not in _POINTS and name != "sweep")


def _rate(row: Any) -> bool:
    return isinstance(row, dict) and row.keys() in _SWEEPS and _numbers(list(row.values()))


def _gate(name: Any, entry: Any) -> bool:
    if name not in GATES or not isinstance(entry, dict) or not entry.keys() <= _GATE:
        return False
    return isinstance(entry.get("passed"), bool) and _numbers([entry.get("seconds"), entry.get("value", 0.0)])


def _space(value: Any) -> bool:
    """Tells whether make_space() can read it; that says itself which names and numbers it knows."""
    if not _map(value) or not _name(value.get("kind", "nos")):
        return False
    if value.get("kind") == TextSpace.kind:
        return True
    if "lines" in value:
        return type(value["lines"]) is int and _name(value.get("vocabulary", "elementwise"))
    options = value.get("options")
    whole = type(value.get("groups")) is int and isinstance(options, dict)
    return whole and _name(value.get("vocabulary")) and all(isinstance(v, bool) for v in options.values())


def _gates(value: Any) -> bool:
    return _map(value) and type(value.get("steps", 1)) is int and all(v is None or _number(v) for v in value.values())


def _scalars(value: Any) -> bool:
    return _map(value) and not any(isinstance(item, (dict, list)) for item in value.values())


# --- the tables ------------------------------------------------------------------------------------------------------

_COUNT = _integer(0)
_SEED = _integer(0)
_MANY = _maybe(_integer(1))
_WORD = _text("a name", lambda v: _NAME.fullmatch(v))
_RULE_TEXT = _text("text of the rule language", is_plain)
_LINE = _text("one line of plain text", _line)
_LINES = _text("plain text", _plain)
_REWARD = _maybe(_real(0.0, 1.0, "a number from 0 to 1"))
_RATE = _maybe(_real(sys.float_info.min, sys.float_info.max, "a number above 0"))
_SECONDS = _real(0.0, relations.YEAR_9999, "seconds, at least 0")
_CURVE = _json("a learning curve", _curve)

TRIAL: dict[str, ValueKind] = {
    "id": _COUNT,
    "tokens": _json("a list of tokens", lambda v: isinstance(v, list) and all(type(t) is int and t >= 0 for t in v)),
    "rule": _RULE_TEXT,
    "key": _LINE,
    "seed": _SEED,
    "status": _one_of(STATUSES),
    "reward": _REWARD,
    "lr": _RATE,
    "duplicate_of": _maybe(_COUNT),
    "reason": _LINES,
    "started": _SECONDS,
    "seconds": _SECONDS,
    "curve": _CURVE,
    "metrics": _json(
        "numbers by name", lambda v: isinstance(v, dict) and all(map(_name, v)) and _numbers([*v.values()])
    ),
    "gates": _json("entries by gate", lambda v: isinstance(v, dict) and all(_gate(*item) for item in v.items())),
    "fingerprint": _text("16 hex digits, or nothing", lambda v: _PRINT.fullmatch(v)),
    "batch": _maybe(_COUNT),
    "asked": _maybe(_COUNT),
    "told": _maybe(_COUNT),
    "attempts": _integer(0),
    "worker": _LINE,
    "family": _maybe(_COUNT),
}
SCORE: dict[str, ValueKind] = {
    "purpose": _WORD,
    "name": _RULE_TEXT,
    "key": _LINE,
    "task": _LINE,
    "seed": _SEED,
    "budget": _json("settings by name", _map),
    "status": _one_of(SCORE_STATUSES),
    "reward": _REWARD,
    "lr": _RATE,
    "test": _REWARD,
    "curve": _CURVE,
    "seconds": _SECONDS,
}
# There is a row for each field of run.RunConfig, which checks what is known of names and numbers.
CONFIG: dict[str, ValueKind] = {
    "task": _WORD,
    "given": _maybe(_one_of(("task", "objective"))),
    "strategy": _WORD,
    "strategy_options": _json("options by name", _scalars),
    "command": _maybe(_LINE),
    "space": _json("a search space", _space),
    "gates": _json("thresholds by gate", _gates),
    "alike": _real(0.0, 1.0, "a distance from 0 to 1"),
    "sweep": _WORD,
    "engine": _WORD,
    "protocol": _WORD,
    "score": _maybe(_WORD),
    "rung_score": _maybe(_WORD),
    "net": _maybe(_LINE),
    "width": _MANY,
    "sweep_steps": _MANY,
    "train_steps": _MANY,
    "data_dir": _maybe(_LINE),
    "data": _maybe(_LINE),
    "seed": _SEED,
    "batch": _integer(1),
    "executor": _maybe(_WORD),
    "workers": _integer(1),
    "threads": _MANY,
    "trial_timeout": _real(0.0, sys.float_info.max, "seconds"),
    "ray_address": _maybe(_LINE),
    "gpus_per_trial": _real(0.0, sys.float_info.max, "a number, at least 0"),
    "device": _maybe(_WORD),
    "promote": _maybe(_LINE),
    "promote_eta": _integer(2),
    "promote_decay": _WORD,
    "trials": _MANY,
    "children": _MANY,
    "seconds": _maybe(_real(0.0, sys.float_info.max, "seconds")),
    "target": _REWARD,
}
NEEDED = ("task", "strategy", "seed", "space")  # a run of any release has these settings
STATE = _one_of(STATES)
_OTHER = _json("a setting", _plain)


def fault(kinds: Mapping[str, ValueKind], values: Mapping[str, Any]) -> str:
    """Says in words which value is the first that is not what it may be, and returns "" when all are."""
    for name, value in values.items():
        if not kinds[name].ok(value):
            return f"{name} {ascii(value)[:60]} is not {kinds[name].wants}"
    return ""


def config_fault(config: Any, versions: Any) -> str:
    """Says what is wrong with a run's configuration and versions. Settings that a later release added are let
    through."""
    if not isinstance(config, dict) or not all(map(_name, config)) or not isinstance(versions, dict):
        return "config and versions are not settings by name"
    missing = [name for name in NEEDED if name not in config]
    if missing:
        return f"config has no {missing[0]}"
    if not all(_name(name) and _line(text) for name, text in versions.items()):
        return "versions are not text by name"
    wrong = fault({name: CONFIG.get(name, _OTHER) for name in config}, config)
    if not wrong:
        try:
            make_space(config["space"])
        except UsageError as error:
            wrong = str(error)
    return f"config: {wrong}" if wrong else ""


def row(record: Trial | Score) -> list[Any]:
    """Returns a record as SQLite keeps it. Raises ValueError for one that would not be read back."""
    kinds = SCORE if isinstance(record, Score) else TRIAL
    wrong = record_fault(record)
    if wrong:
        raise ValueError(f"this cannot be stored: {wrong}")
    values = []
    for name, kind in kinds.items():
        value = getattr(record, name)
        if kind.sql == "JSON":
            value = json.dumps(value)
        elif kind.sql == "REAL" and value is not None:
            value = float(value) + 0.0  # SQLite has no -0.0
        values.append(value)
    return values


def record_fault(record: Trial | Score) -> str:
    """Says what is wrong with a record, without regard to others."""
    if isinstance(record, Score):
        return fault(SCORE, vars(record)) or relations.score_fault(record)
    return fault(TRIAL, {**vars(record), "tokens": list(record.tokens)}) or relations.trial_fault(record)
