"""The plan of the last call is used again, or patched when only gradients moved: nobody may notice but by the speed."""

import threading

import pytest
import torch

import nos_ext

RULE = """
def rule(p, g, m, *, lr, beta=0.5):
    m = beta * m + g
    return p - lr * m, m
"""
SHAPES = ((3, 5), (7,), (), (2, 2, 2))


@pytest.fixture
def program() -> nos_ext.Program:
    return nos_ext.compile_rule(RULE)  # its own, so that no other test has called it


def make(seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor], list[list[torch.Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(shape, generator=generator) for shape in SHAPES]
    grads = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return params, grads, [[torch.zeros_like(p) for p in params]]


def expected(params, grads, state):
    """One step in torch, out of place."""
    m = [0.5 * m + g for m, g in zip(state[0], grads, strict=True)]
    return [p - 0.25 * m for p, m in zip(params, m, strict=True)], [m]


def check_step(program, params, grads, state):
    new_params, new_state = expected(params, grads, state)
    nos_ext.apply_rule(program, params, grads, state, lr=0.25)
    for got, want in zip([*params, *state[0]], [*new_params, *new_state[0]], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_new_gradients_every_step(program):
    params, _, state = make()
    kept = []  # so that no allocator hands out an address twice
    for seed in range(5):
        kept.append(make(seed)[1])
        check_step(program, params, kept[-1], state)


def test_some_gradients_move_and_some_do_not(program):
    params, grads, state = make()
    check_step(program, params, grads, state)
    moved = [g.clone() if i % 2 else g for i, g in enumerate(grads)]
    check_step(program, params, moved, state)
    check_step(program, params, grads, state)


def test_gradients_may_share_memory_after_a_move(program):
    a, b = torch.zeros(4), torch.ones(4)
    state = [[torch.zeros(4), torch.zeros(4)]]
    nos_ext.apply_rule(program, [a, b], [torch.ones(4), torch.ones(4)], state, lr=1.0)
    shared = torch.full((4,), 2.0)
    nos_ext.apply_rule(program, [a, b], [shared, shared], state, lr=1.0)
    torch.testing.assert_close(a, torch.full((4,), -3.5))
    torch.testing.assert_close(b, torch.full((4,), -2.5))


@pytest.mark.parametrize("victim", ["params", "state"])
@pytest.mark.parametrize("offset", [-3, 0, 3])
def test_a_gradient_that_moves_into_written_memory_is_refused(program, victim, offset):
    room = torch.arange(20.0)
    written = room[6:14]
    other = torch.zeros(8)
    params, state = ([written], [[other]]) if victim == "params" else ([other], [[written]])
    nos_ext.apply_rule(program, params, [torch.ones(8)], state, lr=0.5)
    before = [room.clone(), other.clone()]
    with pytest.raises(ValueError, match=r"grads\[0\].*share memory|share memory.*grads\[0\]|and grads\[0\]"):
        nos_ext.apply_rule(program, params, [room[6 + offset : 14 + offset]], state, lr=0.5)
    assert torch.equal(room, before[0])
    assert torch.equal(other, before[1])
    check_step(program, params, [torch.ones(8)], state)  # the refusal left nothing behind


def test_a_gradient_beside_written_memory_is_taken(program):
    room = torch.arange(24.0)
    params, state = [room[8:16]], [[torch.zeros(8)]]
    for gradient in (torch.ones(8), room[:8], room[16:], torch.ones(8)):
        check_step(program, params, [gradient], state)


def test_same_objects_with_other_contents(program):
    """In-place changes of shape, strides and storage behind the same Python objects."""
    p, g, m = torch.zeros(2, 3), torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)
    check_step(program, [p], [g], [[m]])
    for x in (p, g, m):
        x.t_()
    check_step(program, [p], [g], [[m]])
    g.t_()
    with pytest.raises(ValueError, match=r"grads\[0\] has shape \(2, 3\) but params\[0\] has \(3, 2\)"):
        nos_ext.apply_rule(program, [p], [g], [[m]], lr=0.25)
    g.t_()
    p.data = torch.ones(3, 2).t().contiguous().t()
    check_step(program, [p], [g], [[m]])


def test_a_gradient_appears_and_vanishes(program):
    params, grads, state = make()
    for present in (0b1111, 0b0101, 0b1111, 0b0000, 0b1110):
        before = [p.clone() for p in params]
        given = [g.clone() if present >> i & 1 else None for i, g in enumerate(grads)]
        nos_ext.apply_rule(program, params, given, state, lr=0.25)
        for i, (p, old) in enumerate(zip(params, before, strict=True)):
            assert torch.equal(p, old) != bool(present >> i & 1)


def test_a_negated_gradient_is_refused_after_a_move(program):
    params, _, state = make()
    check_step(program, params, make()[1], state)
    negated = [torch._neg_view(g) for g in make()[1]]
    with pytest.raises(ValueError, match=r"grads\[0\] is a lazily negated view"):
        nos_ext.apply_rule(program, params, negated, state, lr=0.25)


def test_two_threads_with_one_program(program):
    """Each thread has its own tensors, and new gradients every step; the plans must not mix."""
    n, steps = 300_000, 40  # enough work for the GIL to be released
    results = [torch.zeros(n) for _ in range(2)]

    def train(k):
        p, m = results[k], torch.zeros(n)
        for step in range(steps):
            nos_ext.apply_rule(program, [p], [torch.full((n,), float(k + 1 + step))], [[m]], lr=0.25, beta=0.0)

    threads = [threading.Thread(target=train, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, p in enumerate(results):
        want = -0.25 * sum(k + 1 + step for step in range(steps))
        assert torch.equal(p, torch.full((n,), want))
