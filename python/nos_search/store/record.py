"""Owns the file in which `evaluate --out` and `simplify --out` keep every finished training, so that an interrupted
night is not lost. In the folders of `prove --out` and `constants --out` there are several.

It is JSON. `format` and `kind` say what it is (files of `simplify` and `constants` are of the kind "nos-search
evaluate", too); `common` has the settings that decide a result on every task, `tasks` those of each task, and
`versions` the software that began it; `trainings` has one row for each, and `sha256` is the checksum of all that. It is
written whole after each training, by replacing the file, and is checked when it is read. Several processes may add to
one file. Rows are made into text once, so that writing ten thousand of them takes hundredths of a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import SearchError, UsageError
from ..escape import line
from ..task.score import scores
from ..train.child import Outcome
from . import files

_FORMAT = 1
_LARGE = 1e300
_MOST_SHOWN = 100  # characters
_STATUSES = ("done", "diverged")
_Key = tuple[str, str, int, int | None]  # task, rule text, seed, number of the learning rate or None for a sweep
_Stamp = tuple[int, int, int] | None


class Record:
    """A record has finished trainings by task, rule text and seed, and by the number of the learning rate where the
    command `command` has no sweep for each. With a path they are kept in that file.

    The file had `finished` of them when it was opened, and `added` have come since. `changed` has the versions of
    software that are others now, as text.
    """

    def __init__(
        self,
        path: str | None,
        common: Mapping[str, Any],
        tasks: Mapping[str, Any],
        versions: Mapping[str, str],
        *,
        command: str = "evaluate",
    ) -> None:
        """Raises UsageError when the file is something else or of other settings, and SearchError when it is
        damaged."""
        self._path, self._command = path, command
        self._common, self._tasks, self._versions = dict(common), dict(tasks), dict(versions)
        self._outcomes: dict[_Key, Outcome] = {}
        self._texts: dict[_Key, tuple[str, str]] = {}  # of rows: as in the file, and as in the checksum
        self._stamp = None if path is None else _stamp(path)
        if path is not None and _holds_something(self._stamp):
            self._read(path, _document(path, command))
        self.finished, self.added = len(self._outcomes), 0
        self.changed = [
            f"{name} {_shown(self._versions.get(name))} -> {now}"
            for name, now in versions.items()
            if self._versions.get(name) != now
        ]

    def get(self, task: str, rule: str, seed: int, rate: int | None = None) -> Outcome | None:
        """Returns the outcome of a training, or None when it is not finished."""
        return self._outcomes.get((task, rule, seed, rate))

    def count(self, rules: Collection[str]) -> int:
        """Returns how many trainings of rules with these texts are finished."""
        return sum(rule in rules for _, rule, _, _ in self._outcomes)

    def add(self, task: str, rule: str, seed: int, outcome: Outcome, rate: int | None = None) -> None:
        """Keeps an outcome. When this returns it is in the file, beside what other processes have added to that."""
        key = task, rule, seed, rate
        self._outcomes[key] = outcome
        if self._path is not None:
            try:
                self._keep(self._path)
            except BaseException:
                del self._outcomes[key]
                raise
        self.added += 1

    def _keep(self, path: str) -> None:
        with files.held(path):
            now = _stamp(path)
            if now != self._stamp and _holds_something(now):
                self._read(path, _document(path, self._command))
            self._write(path)
            self._stamp = _stamp(path)

    def _write(self, path: str) -> None:
        body = {
            "format": _FORMAT,
            "kind": _kind(self._command),
            "common": self._common,
            "tasks": self._tasks,
            "versions": self._versions,
        }
        for key, outcome in self._outcomes.items():
            if key not in self._texts:
                self._texts[key] = _row_texts(_row(key, outcome))
        shown, plain = zip(*(self._texts[key] for key in self._outcomes), strict=True)
        parts = {name: json.dumps(value, sort_keys=True) for name, value in body.items()}
        parts["trainings"] = f"[{', '.join(plain)}]"
        whole = ", ".join(f'"{name}": {parts[name]}' for name in sorted(parts))
        head = json.dumps(body, indent=1, allow_nan=False).removesuffix("\n}")
        rows, digest = ",\n  ".join(shown), _sha256(f"{{{whole}}}")
        files.write("--out", path, f'{head},\n "trainings": [\n  {rows}\n ],\n "sha256": "{digest}"\n}}\n')

    def _read(self, path: str, body: Mapping[str, Any]) -> None:
        _check_same(path, "", body["common"], self._common)
        for task in self._tasks.keys() & body["tasks"].keys():
            _check_same(path, f"{task} ", body["tasks"][task], self._tasks[task])
        self._tasks = {**body["tasks"], **self._tasks}
        self._versions = body["versions"]
        self._outcomes = {**dict(map(_entry, body["trainings"])), **self._outcomes}


def _kind(command: str) -> str:
    return f"nos-search {command}"


def _check_same(path: str, place: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UsageError where settings differ. One that is missing on either side is None."""
    for name in dict.fromkeys((*now, *then)):
        if then.get(name) != now.get(name):
            raise _other(path, f"{place}{name}", then.get(name), now.get(name))


def _other(path: str, name: str, then: object, now: object) -> UsageError:
    what = line(name.replace("_", "-"))
    return UsageError(
        f"--out {path} has trainings with {what} {_shown('none' if then is None else then)}, not "
        f"{line('none' if now is None else now)}; choose another file for these"
    )


def _shown(value: object) -> str:
    """Returns a value of the file, which anyone may have written, for a message of one line."""
    return line(value)[:_MOST_SHOWN]


def _stamp(path: str) -> _Stamp:
    """Returns what changes when a file is replaced, or None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"--out {path} cannot be read: {error.strerror}; choose another file") from None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _holds_something(stamp: _Stamp) -> bool:
    """Tells whether there is a file that is not empty. An empty one was made a moment before its first training."""
    return stamp is not None and stamp[2] > 0


def _document(path: str, command: str) -> dict[str, Any]:
    """Returns the checked content of the file without its digest."""
    try:
        document = json.loads(Path(path).read_bytes())
        kind = document.pop("kind") if isinstance(document, dict) and "kind" in document else None
    except OSError as error:
        raise UsageError(f"--out {path} cannot be read: {error.strerror}; choose another file") from None
    except (ValueError, RecursionError):
        raise UsageError(f"--out {path} exists and is no file of {command} --out, or is cut short; {_REMEDY}") from None
    if kind != _kind(command):
        raise UsageError(f"--out {path} exists and is no file of {command} --out; {_REMEDY}")
    if document.get("format") != _FORMAT:
        raise SearchError(
            f"--out {path} has format {_shown(document.get('format'))}, this release reads {_FORMAT}; upgrade"
        )
    digest = document.pop("sha256", None)
    body = {"kind": kind, **document}
    if digest != _digest(body) or not _well_formed(body):
        raise SearchError(f"--out {path} is damaged: its checksum does not fit its content; {_REMEDY}")
    return body


_REMEDY = "choose another file, or move it away"


def _digest(body: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(body, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- rows ------------------------------------------------------------------------------------------------------------


def _row(key: _Key, outcome: Outcome) -> dict[str, Any]:
    task, rule, seed, rate = key
    losses = outcome.curve.get("val_loss") or [None]
    row = {
        "task": task,
        "rule": rule,
        "seed": seed,
        "status": outcome.status,
        "validation": outcome.reward,
        "test": outcome.test,
        "lr": outcome.lr,
        "loss": losses[-1],  # of validation, nats, at the end
    }
    if rate is None:
        return row
    return {**row, "rate": rate, "steps": outcome.curve.get("steps", []), "scores": scores(outcome.curve)}


def _row_texts(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a row as it stands in the file, and as it is in the checksum."""
    return json.dumps(row, indent=1, allow_nan=False).replace("\n", "\n  "), json.dumps(row, sort_keys=True)


def _entry(row: Mapping[str, Any]) -> tuple[_Key, Outcome]:
    curve: dict[str, Any] = {} if row["loss"] is None else {"val_loss": [row["loss"]]}
    if "rate" in row:
        curve |= {"steps": row["steps"], "score": row["scores"]}
    outcome = Outcome(row["status"], row["validation"], row["lr"], curve, row["test"])
    return (row["task"], row["rule"], row["seed"], row.get("rate")), outcome


def _well_formed(body: Mapping[str, Any]) -> bool:
    """Tells whether a file of anyone's making is safe to work with: a checksum is no proof of good will."""
    parts = all(isinstance(body.get(name), dict) for name in ("common", "tasks", "versions"))
    if not parts or not all(isinstance(task, dict) for task in body["tasks"].values()):
        return False
    if not all(isinstance(value, str) for value in body["versions"].values()):
        return False
    trainings = body.get("trainings")
    if not isinstance(trainings, list) or not all(map(_is_training, trainings)):
        return False
    keys = {(row["task"], row["rule"], row["seed"], row.get("rate")) for row in trainings}
    return len(keys) == len(trainings) and all(row["task"] in body["tasks"] for row in trainings)


def _is_training(row: object) -> bool:
    if not isinstance(row, dict) or row.get("status") not in _STATUSES:
        return False
    texts = all(isinstance(row.get(name), str) for name in ("task", "rule"))
    seed = _is_whole(row.get("seed")) and ("rate" not in row or _is_point(row))
    limits = {"validation": 1.0, "test": 1.0, "lr": _LARGE, "loss": _LARGE}
    missing = ("test", "lr", "loss") if row["status"] == "diverged" else ("test",) if "rate" in row else ()
    numbers = all(
        _is_number(row[name], high) or (row[name] is None and name in missing) if name in row else False
        for name, high in limits.items()
    )
    return texts and seed and numbers


def _is_point(row: Mapping[str, Any]) -> bool:
    """Tells whether a row of a training at one learning rate has that rate's number, and a curve."""
    steps, found = row.get("steps"), row.get("scores")
    if not isinstance(steps, list) or not isinstance(found, list) or len(steps) != len(found):
        return False
    return _is_whole(row["rate"]) and all(map(_is_whole, steps)) and all(_is_number(score, 1.0) for score in found)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high
