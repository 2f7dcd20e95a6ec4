"""Owns what was predicted before anything had run on a device, and the target, beside what a record holds.

The predictions come from the instruction counts of the kernels (docs/performance.md) and the H100's data sheet: 132
multiprocessors at 1.755 GHz, 3.0 TB/s of copy bandwidth. A row that the record cannot answer says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .contenders import COMPILED, GRAPH, INTERPRETER
from .scenes import RANDOM20

Record = dict[str, Any]


def _cell(record: Record, scene: str, rule: str, dtype: str = "float32") -> dict[str, Any] | None:
    for c in record.get("cells", []):
        if (c["scene"], c["rule"], c["dtype"]) == (scene, rule, dtype) and "contenders" in c:
            return dict(c)
    return None


def _of_copy(name: str, scene: str, rule: str, dtype: str = "float32") -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        c = _cell(record, scene, rule, dtype)
        if c is None or name not in c["contenders"] or "copy" not in record:
            return None
        return float(c["bytes"] / c["contenders"][name]["us"] * 1e-3 / record["copy"]["gb_per_s"])

    return value


def _ratio(peer: str, name: str, scene: str, rule: str) -> Callable[[Record], float | None]:
    """Time of the peer / time of `name`."""

    def value(record: Record) -> float | None:
        c = _cell(record, scene, rule)
        if c is None or not {peer, name} <= set(c["contenders"]):
            return None
        return float(c["contenders"][peer]["us"] / c["contenders"][name]["us"])

    return value


def _host(record: Record) -> float | None:
    c = _cell(record, "gpt2", "powersign")
    return None if c is None or INTERPRETER not in c["contenders"] else float(c["contenders"][INTERPRETER]["host_us"])


def _first(record: Record) -> float | None:
    return record["first_update"]["ms"] if "first_update" in record else None


def _population(record: Record) -> float | None:
    for row in record.get("population", []):
        if row.get("candidates") == 256 and "contenders" in row:
            return float(row["contenders"]["K launches"]["ratio"])
    return None


@dataclass(frozen=True, slots=True)
class Row:
    """predicted: from counts; empty where nothing was predicted. target and `at_least` judge the measured value."""

    what: str
    predicted: str
    target: float
    at_least: bool
    unit: str
    value: Callable[[Record], float | None]

    def met(self, measured: float) -> bool:
        return measured >= self.target if self.at_least else measured <= self.target


def _share(what: str, predicted: str, target: float, value: Callable[[Record], float | None]) -> Row:
    return Row(what + ", part of copy bandwidth", predicted, target, True, "", value)


ROWS: Final = (
    _share("interpreter, PowerSign, 2^27 f32", ">= 0.85", 0.92, _of_copy(INTERPRETER, "2^27", "powersign")),
    _share("interpreter, Adam, 2^27 f32", ">= 0.85", 0.92, _of_copy(INTERPRETER, "2^27", "adam")),
    _share("interpreter, Lion, 2^27 f32", ">= 0.85", 0.92, _of_copy(INTERPRETER, "2^27", "lion")),
    _share("interpreter, AddSign, 2^27 f32", "", 0.92, _of_copy(INTERPRETER, "2^27", "addsign")),
    _share("interpreter, random rule of 20 instructions", ">= 0.70", 0.80, _of_copy(INTERPRETER, "2^27", RANDOM20)),
    _share("compiled, PowerSign, 2^27 f32", "", 0.95, _of_copy(COMPILED, "2^27", "powersign")),
    _share("compiled, random rule of 20 instructions", "", 0.95, _of_copy(COMPILED, "2^27", RANDOM20)),
    _share("compiled, random rule of 49 instructions", "", 0.95, _of_copy(COMPILED, "2^27", "random40")),
    *(
        Row(f"torch fused Adam / interpreter, {scene}", "", 3.0 if scene == "5000x256" else 1.0, True, "x",
            _ratio("torch fused", INTERPRETER, scene, "adam"))
        for scene in ("2^27", "gpt2", "1000x16384", "L2", "5000x256")
    ),
    Row("eager PowerSign / interpreter, 2^27", "", 6.0, True, "x", _ratio("eager", INTERPRETER, "2^27", "powersign")),
    Row("_foreach PowerSign / interpreter, 2^27", "", 3.0, True, "x",
        _ratio("_foreach", INTERPRETER, "2^27", "powersign")),
    Row("interpreter / compiled, PowerSign, in L2", "1.6-3.5", 1.0, True, "x",
        _ratio(INTERPRETER, COMPILED, "L2", "powersign")),
    Row("interpreter, launched / in a graph, 5000x256", "", 1.0, True, "x",
        _ratio(INTERPRETER, GRAPH, "5000x256", "powersign")),
    Row("host time of a step, GPT-2's 148 tensors", "", 15.0, False, "us", _host),
    Row("text of a new rule to its first update", "", 1.0, False, "ms", _first),
    Row("256 launches / one, 256 programs x 50,000 elements", "", 20.0, True, "x", _population),
)  # fmt: skip
