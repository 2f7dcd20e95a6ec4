"""Internal decays: the tables of TensorFlow's tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from nos_ext.schedules import cosine_decay, linear_decay, restart_decay

LINEAR = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
COSINE = [1, 0.975528, 0.904508, 0.793893, 0.654508, 0.5, 0.345492, 0.206107, 0.095492, 0.024472]
COSINE_5 = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]
RESTART_5 = [1, 0.5, 1, 0.5, 0, 0, 0, 0, 0, 0]

TABLES: list[tuple[Callable[[float], float], list[float]]] = [
    (linear_decay(1000), LINEAR),
    (cosine_decay(1000), COSINE),
    (cosine_decay(1000, num_periods=5, zero_after=2), COSINE_5),
    (restart_decay(1000), COSINE),
    (restart_decay(1000, num_periods=5, zero_after=2), RESTART_5),
]


@pytest.mark.parametrize(("decay", "table"), TABLES, ids=["linear", "cosine", "cosine-5", "restart", "restart-5"])
def test_tables(decay: Callable[[float], float], table: list[float]) -> None:
    assert [decay(100 * i) for i in range(10)] == pytest.approx(table, abs=5e-7)


def test_after_the_end() -> None:
    assert linear_decay(10)(11) == 0
    assert cosine_decay(10)(20) == pytest.approx(1)  # not clamped, as in TensorFlow
    assert restart_decay(10)(10) == 1


@pytest.mark.parametrize("decay", [linear_decay, cosine_decay, restart_decay])
@pytest.mark.parametrize("steps", [0, -1, math.inf, math.nan])
def test_refused_lengths(decay: Callable[[Any], Any], steps: float) -> None:
    with pytest.raises(ValueError, match="decay_steps"):
        decay(steps)


def test_refused_periods() -> None:
    with pytest.raises(ValueError, match="num_periods"):
        cosine_decay(10, num_periods=0)
    with pytest.raises(ValueError, match="zero_after"):
        restart_decay(10, zero_after=-1)
