"""Reductions over all tensors of a call: which of them are one sum."""

from __future__ import annotations

import math

import torch

import nos_ext


def test_a_norm_and_a_dot_product_of_the_same_elements() -> None:
    """Both are made of the sum of squares, and each counts it once."""
    program = nos_ext.compile_rule("def f(p, g, a, b, *, lr):\n    return p, global_norm(g), global_dot(g, g)")
    params = [torch.zeros(4), torch.zeros(4)]
    state = nos_ext.init_state(program, params)
    nos_ext.apply_rule(program, params, [torch.ones(4), torch.ones(4)], state, lr=0.1)
    assert [float(x) for x in state["b"]] == [8.0, 8.0]
    torch.testing.assert_close(state["a"], [torch.tensor(math.sqrt(8.0))] * 2)


def test_states_of_different_types() -> None:
    """A state in half precision is not read back between two passes, and all the same its tensor is one of them."""
    source = "def f(p, g, a, b, *, lr):\n    a = a + g\n    b = global_norm(a)\n    return p - lr * a * b, a, b"
    program = nos_ext.compile_rule(source)
    params = [torch.zeros(4), torch.zeros(4)]
    state = nos_ext.init_state(program, params)
    state["a"][1] = state["a"][1].bfloat16()
    nos_ext.apply_rule(program, params, [torch.ones(4), torch.ones(4)], state, lr=0.1)
    torch.testing.assert_close(state["b"], [torch.tensor(math.sqrt(8.0))] * 2)
