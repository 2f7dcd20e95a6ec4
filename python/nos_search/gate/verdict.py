"""Owns what a gate says about a candidate, and what the gates of a run have stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

from ..bounds import check_count
from ..errors import UsageError
from ..rules import CompiledRule
from ..space import Tokens
from .families import check_distance

GATES: dict[str, str] = {
    "static": "a live operand carries the gradient",
    "effect": "the update depends on the gradient and is finite for ordinary ones",
    "fingerprint": "the function was not seen before: its values on a fixed probe",
    "canonical": "the formula was not seen before: equal by algebra",
    "descent": "the update points down the slope",
    "screen": "the rule gets somewhere on the analytic surfaces at one of its learning rates",
    "family": "no rule was seen before that behaves nearly alike",
}


@dataclass(frozen=True)
class Gates:
    """These are the thresholds of the gates; None switches a gate off.

    `descent` is the least mean cosine between update and gradient. `screen` is the least score on the surfaces at the
    best learning rate, and `steps` says how long the screening trains at each. `family` is the distance
    (gate/families.py) up to which a rule counts as a duplicate of one that was trained.
    """

    descent: float | None = 0.0
    screen: float | None = 0.05
    steps: int = 200
    family: float | None = None

    def __post_init__(self) -> None:
        if self.descent is not None and not -1 <= self.descent <= 1:
            raise UsageError(f"gate descent {self.descent} is outside [-1, 1]; it is a cosine")
        if self.screen is not None and not 0 <= self.screen <= 1:
            raise UsageError(f"gate screen {self.screen} is outside [0, 1]")
        check_distance("gate family", self.family)
        check_count("gate steps", self.steps)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gates:
        return cls(**{entry.name: data[entry.name] for entry in fields(cls) if entry.name in data})

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """A verdict says whether a candidate "passed", is "rejected" or is a "duplicate", and which `gate` decided; that is
    "" when it passed.

    `key` is the canonical form and `fingerprint` has 16 hex digits; both are "" when a gate before them decided.
    `duplicate_of` is the number of the equal candidate. `rule` is compiled when it passed. `score`, on the surfaces,
    and `cosine`, of the descent test, are there when these were run. `seconds` says how long the candidate was in each
    gate that it came to.
    """

    tokens: Tokens
    status: Literal["passed", "rejected", "duplicate"]
    gate: str = ""
    reason: str = ""
    key: str = ""
    fingerprint: str = ""
    duplicate_of: int | None = None
    rule: CompiledRule | None = None
    cosine: float | None = None
    score: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def gates(self) -> dict[str, dict[str, Any]]:
        """Returns what a trial's row keeps: for each gate in order {"passed", "seconds"}, and the number that decided
        where there is one. From these alone `gate_counts` tells the whole funnel."""
        found = {gate: {"passed": gate != self.gate, "seconds": seconds} for gate, seconds in self.seconds.items()}
        for gate, value in (("descent", self.cosine), ("screen", self.score)):
            if value is not None:
                found[gate]["value"] = value
        return found


@dataclass(frozen=True)
class GateCount:
    """What a gate did in a run: `entered` candidates came to it, it stopped `stopped` of them, and it took `seconds` in
    all."""

    gate: str
    entered: int
    stopped: int
    seconds: float


class _Judged(Protocol):
    """This is what has gone through gates, such as a trial of a store."""

    @property
    def gates(self) -> dict[str, dict[str, Any]]: ...


def gate_counts(trials: Sequence[_Judged]) -> list[GateCount]:
    """Returns the funnel of a run from its trials: one row per gate, the cheapest first."""
    entered, stopped, seconds = (dict.fromkeys(GATES, 0), dict.fromkeys(GATES, 0), dict.fromkeys(GATES, 0.0))
    for trial in trials:
        for gate, entry in trial.gates.items():
            entered[gate] += 1
            seconds[gate] += entry["seconds"]
            stopped[gate] += not entry["passed"]
    return [GateCount(gate, entered[gate], stopped[gate], seconds[gate]) for gate in GATES]
