"""Owns the estimate of how long a search goes on, promotions included: what is left to train, at the pace so far."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Where a search ends, None for no such limit: after so many answered proposals, trained children, or seconds.

    rungs: how many there are above the search's own task; one rule in `eta` of those scored on a rung goes up.
    """

    trials: int | None = None
    children: int | None = None
    seconds: float | None = None
    rungs: int = 0
    eta: int = 4


@dataclass
class Work:
    """What has been done so far. trained: children; seconds: of their training. On rung 1, 2, ... likewise."""

    answered: int = 0
    trained: int = 0
    seconds: float = 0.0
    promoted: dict[int, int] = field(default_factory=dict)
    promoted_seconds: dict[int, float] = field(default_factory=dict)

    def promote(self, rung: int, seconds: float) -> None:
        """Counts a promotion that has ended. Another thread may be reading, so the old tables stay as they are."""
        self.promoted = {**self.promoted, rung: self.promoted.get(rung, 0) + 1}
        self.promoted_seconds = {**self.promoted_seconds, rung: self.promoted_seconds.get(rung, 0.0) + seconds}

    @property
    def total_seconds(self) -> float:
        """The seconds of all trainings, which workers may have spent side by side."""
        return self.seconds + sum(self.promoted_seconds.values())


def children(work: Work, limits: Limits) -> float | None:
    """How many children the search will have trained in the end; None where only time or a reward ends it."""
    ends: list[float] = []
    if limits.trials is not None and work.answered:
        ends.append(work.trained * limits.trials / work.answered)
    if limits.children is not None:
        ends.append(limits.children)
    return max(work.trained, min(ends)) if ends else None


def promotions(work: Work, limits: Limits) -> list[int] | None:
    """How many rules will have been scored on rung 1, 2, ... in the end; None where `children` is.

    One in eta of the rung below at least. A rule that was among the best when few were known went up, too, so where
    promotions have been more frequent than that, they are taken to stay so.
    """
    last = children(work, limits)
    if last is None:
        return None
    found = [int(last)]
    for rung in range(1, limits.rungs + 1):
        so_far = work.promoted.get(rung, 0) * last / max(1, work.trained)
        found.append(max(found[-1] // limits.eta, round(so_far)))
    return found[1:]


def seconds_left(work: Work, limits: Limits, *, elapsed: float, pace: float) -> float | None:
    """Estimates the seconds until the search ends; None when nothing is known yet.

    elapsed: since it began or was resumed. pace: seconds of training done per second of that time.
    """
    ends = [] if limits.seconds is None else [max(0.0, limits.seconds - elapsed)]
    last = children(work, limits)
    if last is not None and work.trained and pace > 0:
        each = work.seconds / work.trained
        rest = (last - work.trained) * each
        for rung, wanted in enumerate(promotions(work, limits) or (), start=1):
            done = work.promoted.get(rung, 0)
            if done:  # else as long as on the rung below, for want of better
                each = work.promoted_seconds[rung] / done
            rest += max(0, wanted - done) * each
        ends.append(rest / pace)
    return min(ends) if ends else None
