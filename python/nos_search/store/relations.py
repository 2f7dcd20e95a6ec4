"""Owns what the values of a store must be to each other when each is right by itself (schema.py).

Every function says in words what is wrong, and returns "" when nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .records import Score, Trial

YEAR_9999 = 253_370_764_800.0  # seconds since 1970; a date needs no more, and datetime has no more
PROMOTION = "promotion"  # purpose of a score whose budget names trial and rung


def trial_fault(trial: Trial) -> str:
    """Says what is wrong between the fields of one trial."""
    if (trial.told is None) != (trial.status == "running"):
        return f"status {trial.status} with told {trial.told}"
    if (trial.duplicate_of is not None) != (trial.status == "duplicate"):
        return f"status {trial.status} with duplicate_of {trial.duplicate_of}"
    if trial.family is not None and not trial.trained:
        return f"status {trial.status} with family {trial.family}"
    if trial.started + trial.seconds > YEAR_9999:
        return f"it ended {trial.started + trial.seconds:g} seconds after 1970, beyond all dates"
    scored = trial.lr is None and not trial.curve  # by a function, without a training
    trained = trial.lr is not None and {"steps", "accuracy"} <= trial.curve.keys()
    if trial.status == "done" and (trial.reward is None or not (trained or scored)):
        return "status done without reward, lr or learning curve"
    return ""


def score_fault(score: Score) -> str:
    """Says what is wrong between the fields of one score."""
    numbers = [score.budget.get(name) for name in ("trial", "rung")]
    if score.purpose == PROMOTION and not all(type(number) is int for number in numbers):
        return f"budget {ascii(score.budget)[:60]} of a promotion does not name trial and rung"
    return ""


def trials_fault(trials: Sequence[Trial], holds: Callable[[Sequence[int]], bool]) -> str:
    """Says what is wrong between the trials of a run. `holds` tells whether tokens are a string of its space."""
    by_id = {trial.id: trial for trial in trials}
    if sorted(by_id) != list(range(len(trials))):
        return "the numbers of the trials have a gap"
    told = sorted(trial.told for trial in trials if trial.told is not None)
    if told != list(range(len(told))):
        return "the order of the answers (told) has a gap"
    for trial in trials:
        wrong = trial_fault(trial)
        if not wrong and not holds(trial.tokens):
            wrong = f"tokens {list(trial.tokens)[:20]} are no string of the run's space"
        if not wrong and trial.duplicate_of is not None:
            first = by_id.get(trial.duplicate_of)
            if first is None or not first.trained:
                wrong = f"duplicate_of {trial.duplicate_of}, which was not trained"
        if not wrong and trial.family is not None:
            first = by_id.get(trial.family)
            if first is None or first.family != first.id or (first.told or 0) > (trial.told or 0):
                wrong = f"family {trial.family}, of which that trial is not the first"
        if wrong:
            return f"trial {trial.id}: {wrong}"
    return ""


def scores_fault(scores: Sequence[Score]) -> str:
    """Says what is wrong between the scores of a run: a promoted rule goes up rung by rung."""
    reached: dict[int, int] = {}
    for score in scores:
        wrong = score_fault(score)
        if not wrong and score.purpose == PROMOTION:
            trial, rung = score.budget["trial"], score.budget["rung"]
            if rung != reached.get(trial, 0) + 1:
                wrong = f"trial {trial} was promoted to rung {rung} from rung {reached.get(trial, 0)}"
            reached[trial] = rung
        if wrong:
            return f"score: {wrong}"
    return ""
