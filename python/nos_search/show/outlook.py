"""Owns the estimate of how long a search still takes, promotions included. It follows from what is left to train and
from the pace so far."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Limits say where a search ends: after so many answered proposals, trained children, or seconds. None is no limit.

    `rungs` counts those above the search's own task. One rule in `eta` of those scored on a rung goes up.
    """

    trials: int | None = None
    children: int | None = None
    seconds: float | None = None
    rungs: int = 0
    eta: int = 4


@dataclass
class Work:
    """Work says what has been done so far: how many proposals were answered, how many children were trained and for how
    many seconds, and the same for the promotions to each rung."""

    answered: int = 0
    trained: int = 0
    seconds: float = 0.0
    promoted: dict[int, int] = field(default_factory=dict)
    promoted_seconds: dict[int, float] = field(default_factory=dict)

    def promote(self, rung: int, seconds: float) -> None:
        """Counts a promotion in. Another thread may be reading, so the old tables stay as they are."""
        self.promoted = {**self.promoted, rung: self.promoted.get(rung, 0) + 1}
        self.promoted_seconds = {**self.promoted_seconds, rung: self.promoted_seconds.get(rung, 0.0) + seconds}

    @property
    def total_seconds(self) -> float:
        """These are the seconds of all trainings, which workers may have spent side by side."""
        return self.seconds + sum(self.promoted_seconds.values())


def children(work: Work, limits: Limits) -> float | None:
    """Returns how many children the search will have trained in the end, and None where only time or a reward ends
    it."""
    ends: list[float] = []
    if limits.trials is not None and work.answered:
        ends.append(work.trained * limits.trials / work.answered)
    if limits.children is not None:
        ends.append(limits.children)
    return max(work.trained, min(ends)) if ends else None


def promotions(work: Work, limits: Limits) -> list[int] | None:
    """Returns how many rules will have been scored on the rungs 1, 2, ... in the end, and None where `children` does.

    It is one in eta of the rung below. A run of an older release may have had more.
    """
    last = children(work, limits)
    if last is None:
        return None
    found = [int(last)]
    for rung in range(1, limits.rungs + 1):
        found.append(max(found[-1] // limits.eta, work.promoted.get(rung, 0)))
    return found[1:]


def seconds_left(work: Work, limits: Limits, *, elapsed: float, pace: float) -> float | None:
    """Estimates the seconds until the search ends. None means that nothing is known yet.

    `elapsed` are the seconds since it began or was resumed, and `pace` are the seconds of training that were done in
    one of them.
    """
    ends = [] if limits.seconds is None else [max(0.0, limits.seconds - elapsed)]
    last = children(work, limits)
    if last is not None and work.trained and pace > 0:
        each = work.seconds / work.trained
        rest = (last - work.trained) * each
        for rung, wanted in enumerate(promotions(work, limits) or (), start=1):
            done = work.promoted.get(rung, 0)
            if done:  # otherwise a training takes as long as on the rung below, for all that is known
                each = work.promoted_seconds[rung] / done
            rest += max(0, wanted - done) * each
        ends.append(rest / pace)
    return min(ends) if ends else None
