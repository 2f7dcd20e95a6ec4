"""Owns the gates before training, as one funnel. It finds the candidates that are worth a child, and asks the cheapest
question first.

Candidates go through in batches. A candidate is equal to a rule that was recorded as trained, or to a candidate before
it in its batch, or to none. The verdict on it depends on nothing else, so a funnel that is rebuilt from the stored
trials goes on as the old one would.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from ..errors import UsageError
from ..rules import CompiledRule
from ..space import SearchSpace, Tokens
from ..space.group import Array
from . import probe
from .families import THRESHOLD, Families, behaviours
from .judge import SEED, judge_of
from .screen import screen
from .verdict import Gates, Verdict

_SPLIT = 2048  # so many candidates of a batch are judged at once


class _Case:
    """This is a candidate on its way. It has the fields of its verdict, which is made once, at the end."""

    def __init__(self, tokens: Tokens, number: int) -> None:
        self.tokens, self.number = tokens, number
        self.status: Literal["passed", "rejected", "duplicate"] = "passed"
        self.done = False
        self.gate = self.reason = self.key = ""
        self.fingerprint: int | None = None
        self.duplicate_of: int | None = None
        self.rule: CompiledRule | None = None
        self.behaviour: Array | None = None
        self.cosine: float | None = None
        self.score: float | None = None
        self.seconds: dict[str, float] = {}

    def reject(self, gate: str, reason: str) -> None:
        self.status, self.gate, self.reason, self.done = "rejected", gate, reason, True

    def equals(self, gate: str, reason: str, number: int) -> None:
        self.status, self.gate, self.reason, self.done = "duplicate", gate, reason, True
        self.duplicate_of = number

    def verdict(self) -> Verdict:
        shown = "" if self.fingerprint is None else f"{self.fingerprint:016x}"
        return Verdict(
            self.tokens,
            self.status,
            self.gate,
            self.reason,
            self.key,
            shown,
            self.duplicate_of,
            self.rule,
            self.cosine,
            self.score,
            self.seconds,
        )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Switches the garbage collector off. The gates make many small objects and no cycles; searching them for garbage
    would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Funnel:
    """The gates of a run, and the families of what was trained. Rules up to the distance `alike` from the first of a
    family belong to it. `clock` gives seconds from any start."""

    def __init__(
        self,
        space: SearchSpace,
        gates: Gates | None = None,
        *,
        alike: float = THRESHOLD,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.space, self.gates, self.clock = space, gates or Gates(), clock
        self.families = Families(alike)
        self._judge = judge_of(space)
        self._near: Families | None = None  # those of the gate, where it is on
        if self.gates.family is not None:
            self._near = Families(self.gates.family)
        self._fingerprints: dict[int, int] = {}  # fingerprint -> the trial that was trained
        self._keys: dict[str, int] = {}
        # Of what passed: the fingerprint, where it tells, the key and the behaviour.
        self._passed: dict[Tokens, tuple[int | None, str, Array]] = {}
        self._prints_now: dict[int, int] = {}  # of the batch at hand
        self._keys_now: dict[str, int] = {}
        self._near_now: Families | None = None

    # --- what was trained ------------------------------------------------------------------------------------------

    def record(self, number: int, tokens: Tokens) -> int | None:
        """Takes note that candidate `number` has been trained: equal ones are duplicates of it from now on. Returns the
        number of its family, which is that of its first member (None for a string that is no rule)."""
        known = self._passed.pop(tuple(tokens), None)
        if known is None:
            return self.restore([(number, tokens)])[0]
        print_, key, behaviour = known
        self._remember(print_, key, number)
        return self._enter(behaviour[None], [number])[0]

    def restore(self, trained: Sequence[tuple[int, Tokens]], *, equals: bool = True) -> list[int | None]:
        """Records many at once, as after a resume, in the order in which they were recorded then. Of equal ones the
        first counts. Who wants to know their families alone goes without `equals`, in half the time."""
        found: list[int | None] = []
        for start in range(0, len(trained), _SPLIT):
            part = trained[start : start + _SPLIT]
            batch = [tokens for _, tokens in part]
            families: list[int | None] = [None] * len(part)
            rows = [row for row, reason in enumerate(self._judge.start(batch)) if not reason]
            if rows:
                if equals:
                    prints: list[int] = probe.fingerprints(self._judge.effect(rows)).tolist()
                    for row, print_ in zip(rows, prints, strict=True):
                        self._remember(self._telling(row, int(print_)), self._judge.key(row), part[row][0])
                points = behaviours(self._judge.behaviour(rows))
                for row, family in zip(rows, self._enter(points, [part[row][0] for row in rows]), strict=True):
                    families[row] = family
            found += families
        return found

    def _enter(self, points: Array, numbers: Sequence[int]) -> list[int]:
        """Adds what was trained to its families, and returns these."""
        if self._near is not None:
            self._near.add_many(points, numbers)
        return self.families.add_many(points, numbers)

    def _telling(self, row: int, print_: int | None) -> int | None:
        """Returns the fingerprint where it tells this candidate from others."""
        return print_ if self._judge.comparable(row) else None

    def _remember(self, print_: int | None, key: str, number: int) -> None:
        if print_ is not None:
            self._fingerprints.setdefault(print_, number)
        self._keys.setdefault(key, number)

    # --- the gates -------------------------------------------------------------------------------------------------

    def admit(self, batch: Sequence[Sequence[int]], numbers: Sequence[int] | None = None) -> list[Verdict]:
        """Returns a verdict for each string, in order. `numbers` are what `duplicate_of` calls them; without it they
        are -1, -2, ...

        Raises UsageError when there are not as many numbers as strings.
        """
        numbers = list(numbers) if numbers is not None else [-1 - k for k in range(len(batch))]
        if len(numbers) != len(batch):
            raise UsageError(f"admit: {len(batch)} strings and {len(numbers)} numbers")
        verdicts: list[Verdict] = []
        # What only this batch has seen goes into maps of its own, which are emptied afterwards.
        self._prints_now, self._keys_now = {}, {}
        self._near_now = None if self.gates.family is None else Families(self.gates.family)
        with _no_garbage():
            for start in range(0, len(batch), _SPLIT):
                part = [tuple(tokens) for tokens in batch[start : start + _SPLIT]]
                verdicts += self._admit(part, numbers[start : start + _SPLIT])
        return verdicts

    def _admit(self, batch: list[Tokens], numbers: Sequence[int]) -> list[Verdict]:
        cases = [_Case(tokens, number) for tokens, number in zip(batch, numbers, strict=True)]
        judge = self._judge
        with self._timed("static", cases):
            for case, reason in zip(cases, judge.start(batch), strict=True):
                if reason:
                    case.reject("static", reason)
        self._effect(cases)
        self._descent(cases)
        self._screen(cases)
        self._family(cases)
        for row, case in enumerate(cases):
            if case.behaviour is not None and not case.done:
                case.rule = judge.rule(row, case.key)
                self._passed[case.tokens] = self._telling(row, case.fingerprint), case.key, case.behaviour
        return [case.verdict() for case in cases]

    @contextmanager
    def _timed(self, gate: str, cases: Sequence[_Case]) -> Iterator[None]:
        """Shares the time of a gate among those who go through it."""
        start = self.clock()
        yield
        share = (self.clock() - start) / max(1, len(cases))
        for case in cases:
            case.seconds[gate] = share

    def _rows(self, cases: Sequence[_Case]) -> list[int]:
        return [row for row, case in enumerate(cases) if not case.done]

    def _effect(self, cases: list[_Case]) -> None:
        """Asks the gates effect, fingerprint and canonical: all that follows from one evaluation of the probe."""
        rows = self._rows(cases)
        if not rows:
            return
        with self._timed("effect", [cases[row] for row in rows]):
            updates = self._judge.effect(rows)
            first, second = probe.halves(updates)
            effect, finite = probe.has_effect(first, second).tolist(), probe.is_finite(first).tolist()
            for row, acts, good in zip(rows, effect, finite, strict=True):
                if not acts:
                    cases[row].reject("effect", "gradient has no effect")
                elif not good:
                    cases[row].reject("effect", "not finite")
        kept = [k for k, row in enumerate(rows) if not cases[row].done]
        rows = [rows[k] for k in kept]
        with self._timed("fingerprint", [cases[row] for row in rows]):
            prints = probe.fingerprints(updates[kept]).tolist()
            for row, print_ in zip(rows, prints, strict=True):
                case = cases[row]
                case.fingerprint = print_
                if self._judge.comparable(row):
                    earlier = self._fingerprints.get(print_)
                    if earlier is None:
                        earlier = self._prints_now.setdefault(print_, case.number)
                    if earlier != case.number:
                        case.equals("fingerprint", "same function", earlier)
        rows = [row for row in rows if not cases[row].done]
        # If another rule of the batch is said to equal one of these, it equals what that one equals.
        moved: dict[int, int] = {}
        with self._timed("canonical", [cases[row] for row in rows]):
            for row in rows:
                case, key = cases[row], self._judge.key(row)
                case.key = key
                earlier = self._keys.get(key)
                if earlier is None:
                    earlier = self._keys_now.setdefault(key, case.number)
                if earlier != case.number:
                    case.equals("canonical", "equal by algebra", earlier)
                    moved[case.number] = earlier
        if moved:
            for case in cases:
                if case.gate == "fingerprint" and case.duplicate_of in moved:
                    case.duplicate_of = moved[case.duplicate_of]

    def _descent(self, cases: list[_Case]) -> None:
        rows = self._rows(cases)
        least = self.gates.descent
        if least is None or not rows:
            return
        with self._timed("descent", [cases[row] for row in rows]):
            cosines = probe.descent_cosines(self._judge.descent(rows)).tolist()
            for row, cosine in zip(rows, cosines, strict=True):
                case = cases[row]
                case.cosine = cosine
                if cosine < least:
                    case.reject("descent", "does not descend")

    def _screen(self, cases: list[_Case]) -> None:
        rows = self._rows(cases)
        least = self.gates.screen
        if least is None or not rows:
            return
        with self._timed("screen", [cases[row] for row in rows]):
            programs = [self._judge.screening(row) for row in rows]
            found = screen(programs, steps=self.gates.steps, seed=SEED).score.tolist()
            for row, score in zip(rows, found, strict=True):
                case = cases[row]
                case.score = score
                if score < least:
                    case.reject("screen", "gets nowhere on the surfaces")

    def _family(self, cases: list[_Case]) -> None:
        """Asks how those that are left behave, and the last gate, where it is on, whether one that was trained does
        nearly the same."""
        rows = self._rows(cases)
        if not rows:
            return
        if self._near is None or self._near_now is None:
            for row, point in zip(rows, behaviours(self._judge.behaviour(rows)), strict=True):
                cases[row].behaviour = point
            return
        with self._timed("family", [cases[row] for row in rows]):
            points = behaviours(self._judge.behaviour(rows))
            for row, point, family in zip(rows, points, self._near.find(points), strict=True):
                case = cases[row]
                case.behaviour = point
                earlier = self._near_now.add(point, case.number) if family is None else family
                if earlier != case.number:
                    case.equals("family", "behaves nearly alike", earlier)
