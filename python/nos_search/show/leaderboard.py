"""Owns what can be read off a run: the leaderboard, how many trials had which outcome, and the JSON that the command
line prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..rules import as_argument
from ..run import RunConfig
from ..run.climbing import Reached, climbed, order, rungs
from ..run.families import families_of
from ..store import STATUSES, Store, Trial
from ..task.score import ACCURACY, bits


@dataclass(frozen=True)
class Row:
    """A Row is one rule of the leaderboard.

    `rule` is its text as the command line takes it. It was first trained in the trial `trial`. It, or a rule that
    equals it by algebra, was proposed `trials` times. Of these proposals all but one were not trained, which are the
    `duplicates`. `promoted` has its rewards on the rungs of --promote that it reached, and `ranks` its mean ranks
    there, over the tasks of a rung and among all rules that were scored on it. `bits` is the loss of its child on
    validation data at the end, in bits per target; an old run may not have it.

    `family` is the number of the rule's family, which is that of the first trial of it, and `members` counts the rules
    of that family that were trained. Both are None where families were not looked for.
    """

    rank: int
    reward: float
    lr: float | None
    rule: str
    trial: int
    trials: int
    duplicates: int
    promoted: tuple[float, ...] = ()
    bits: float | None = None
    family: int | None = None
    members: int | None = None
    ranks: tuple[float, ...] = ()


def shown_rungs(promoted: Sequence[float], ranks: Sequence[float], higher: Sequence[str]) -> list[str]:
    """Returns what a table shows of a rule for the rungs, which the user wrote as `higher`: the reward, and where a
    rung has several tasks the mean rank, by which its rules are ordered."""
    cells = [
        f"{reward:.4f} ({rank:.1f})" if "+" in name else f"{reward:.4f}"
        for reward, rank, name in zip(promoted, ranks, higher, strict=False)
    ]
    return cells + [""] * (len(higher) - len(cells))


def leaderboard(
    trials: Sequence[Trial],
    promoted: Mapping[int, Sequence[Reached]] | None = None,
    families: Mapping[int, int] | None = None,
    *,
    every: bool = False,
) -> list[Row]:
    """Returns the rules that were trained to the end, the best first. Those of equal reward are in order of discovery.

    `promoted` is what `run.climbing.climbed` says. A rule that reached a higher rung stands before all that did not.
    With `families`, which `run.families.families_of` tells, there is one row for each family, with its best rule; with
    `every` there is one for each rule all the same.
    """
    climbs, kin = promoted or {}, families or {}
    members = Counter(kin.values())
    duplicates = Counter(trial.duplicate_of for trial in trials if trial.status == "duplicate")
    done = sorted(
        (trial for trial in trials if trial.status == "done" and trial.reward is not None),
        key=lambda trial: standing(trial, climbs.get(trial.id, ())),
    )
    if not every:
        firsts: dict[object, Trial] = {}
        for trial in done:  # one of no known family is shown by itself
            firsts.setdefault(kin.get(trial.id, (trial.id,)), trial)
        done = list(firsts.values())
    return [
        Row(
            rank,
            t.reward or 0.0,
            t.lr,
            as_argument(t.rule),
            t.id,
            1 + duplicates[t.id],
            duplicates[t.id],
            tuple(reached.reward for reached in climbs.get(t.id, ())),
            _bits(t),
            kin.get(t.id),
            members[kin[t.id]] if t.id in kin else None,
            tuple(reached.rank for reached in climbs.get(t.id, ())),
        )
        for rank, t in enumerate(done, start=1)
    ]


def _bits(trial: Trial) -> float | None:
    losses = trial.curve.get("val_loss")
    return bits(losses[-1]) if losses else None


def standing(trial: Trial, promoted: Sequence[Reached]) -> tuple[float, float, float, int]:
    """Returns what sorts trained rules, best first: by what they reached, then by discovery."""
    return (*order(trial.reward or 0.0, promoted), trial.id)


def best_rows(store: Store, *, every: bool = False) -> list[Row]:
    """Returns the leaderboard of a stored run: the best rule of each family, or with `every` all rules."""
    trials = store.trials()
    return leaderboard(trials, climbed(store), families_of(store, trials), every=every)


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Counts the trials: all that were answered, those that were trained, and those of each status."""
    by_status = Counter(trial.status for trial in trials)
    result = {"trials": len(trials) - by_status["running"], "trained": by_status["done"] + by_status["diverged"]}
    return result | {_PLURAL.get(status, status): by_status[status] for status in STATUSES}


_PLURAL = {"duplicate": "duplicates"}


def summary(store: Store, *, top: int | None = None, every: bool = False) -> dict[str, Any]:
    """Returns a description of a run as JSON. The leaderboard has `top` rows at most, one for each family, or with
    `every` one for each rule. "families" counts those of the rules that were trained.

    "state" is what Store.state says. "running" counts the trials that were proposed and not answered yet. Those of a
    run that is not going on are counted as "interrupted", and resume takes them up again.
    """
    trials = store.trials()
    families = families_of(store, trials)
    rows = leaderboard(trials, climbed(store), families, every=every)
    config, going_on = store.config, store.being_written()
    settings = RunConfig.from_json(config)
    total = counts(trials)
    total["interrupted"] = 0 if going_on else total["running"]
    total["running"] -= total["interrupted"]
    return {
        "format": 1,
        "folder": str(store.folder),
        "task": config["task"],
        "score": settings.score or ACCURACY,
        "strategy": config["strategy"],
        "seed": config["seed"],
        "state": store.state,
        "going_on": going_on,
        **total,
        "families": len({*families.values()}),
        "rungs": rungs(settings),
        "best": asdict(rows[0]) if rows else None,
        "leaderboard": [asdict(row) for row in rows[:top]],
    }
