"""The fold of the paper's strings, over numbers and over text, against a table of outputs filled in from the front."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nos_search.space import Options, Space
from nos_search.space.group import Array, Meaning

P = 10_007  # a prime: values are numbers modulo it, and functions that tell every token and place apart


class Residues(Meaning[Array]):
    """Numbers as arrays of one element, or of a row each."""

    def operand(self, token: int) -> Array:
        return np.array([token + 2])

    def unary(self, token: int, x: Array, place: int) -> Array:
        return (x * (token + 3) + place) % P

    def binary(self, token: int, left: Array, right: Array) -> Array:
        return (left * (token + 5) + right * right) % P


def value(space: Space, tokens: tuple[int, ...]) -> int:
    """The same by hand, every group whether it is used or not."""
    names = space.positions[0].names
    outputs: list[int] = []
    for group in range(space.groups):
        op1, op2, u1, u2, b = tokens[5 * group : 5 * group + 5]
        x, y = (op + 2 if op < len(names) else outputs[op - len(names)] for op in (op1, op2))
        x, y = (x * (u1 + 3) + 2 * group) % P, (y * (u2 + 3) + 2 * group + 1) % P
        kept = space.positions[4].names[b] == "left"
        outputs.append(x if kept else (x * (b + 5) + y * y) % P)
    return outputs[-1]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_one_string_and_many(groups: int) -> None:
    space, generator = Space(groups=groups, options=Options(use_earlier=False)), torch.Generator().manual_seed(groups)
    strings = [space.sample(generator) for _ in range(500)]
    truth = [value(space, tokens) for tokens in strings]
    assert len(set(truth)) > 100
    meaning, shape = Residues(), space.shape
    assert [int(shape.fold(tokens, meaning)[0]) for tokens in strings] == truth
    assert shape.fold_many(np.array(strings), meaning, shape.plain_sides(meaning))[:, 0].tolist() == truth


class Calls(Meaning[None]):
    """Counts what is evaluated."""

    def __init__(self) -> None:
        self.operands: list[int] = []

    def operand(self, token: int) -> None:
        self.operands.append(token)

    def unary(self, token: int, x: None, place: int) -> None:
        pass

    def binary(self, token: int, left: None, right: None) -> None:
        pass


def test_an_output_is_evaluated_at_each_use_and_what_is_dropped_never() -> None:
    space = Space(groups=2)
    left, out1 = space.positions[4].names.index("left"), 17
    for second, evaluated in (
        ((out1, 0, 0, 0, 2), [3, 5, 0]),
        ((out1, out1, 0, 0, 2), [3, 5, 3, 5]),
        ((0, out1, 0, 0, left), [0]),
    ):
        calls = Calls()
        space.shape.fold((3, 5, 0, 0, 0, *second), calls)
        assert calls.operands == evaluated
