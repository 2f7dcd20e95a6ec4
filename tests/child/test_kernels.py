"""Children by own kernels against float64 autograd, and against themselves on other instruction sets."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C
from tests.fresh import python
from tests.reference import rounding
from tests.reference.child import LAYERS, MOMENTUM, loss_and_gradients
from tests.reference.rounding import error_bounds
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(_C.child_kernels() is None, reason="needs fused multiply-adds")

torch.set_num_threads(1)

Layers = list[tuple[str, int]]


def convnet(depth: int, width: int, classes: int) -> Layers:
    return [("convolution", width), ("norm_pool", 0)] * depth + [("linear", classes)]


MLP: Layers = [("linear", 32), ("relu", 0), ("linear", 10)]
TEXT: Layers = [("embedding", 16), ("linear", 64), ("relu", 0), ("linear", 60)]


def language(depth: int, width: int, vocabulary: int) -> Layers:
    return [("text_gru", width), *[("gru", width)] * (depth - 1), ("position_linear", vocabulary)]


# layers, input, sizes, batch: whole vectors and parts of one, odd images, channels and filters that fit no tile
CASES: dict[str, tuple[Layers, str, tuple[int, ...], int]] = {
    "digits": (convnet(2, 8, 10), "image", (1, 8, 8), 100),
    "odd": (convnet(2, 5, 10), "image", (3, 7, 9), 33),
    "deep": (convnet(3, 16, 4), "image", (2, 14, 14), 16),
    "wide": (convnet(1, 23, 3), "image", (1, 6, 5), 65),
    "many channels": (convnet(2, 19, 3), "image", (1, 13, 8), 37),
    "one": (convnet(1, 1, 2), "image", (1, 2, 2), 1),
    "mlp": (MLP, "image", (1, 8, 8), 100),
    "text": (TEXT, "tokens", (8, 60), 128),
    "language": (language(1, 96, 60), "tokens", (64, 60), 32),
    "deep language": (language(2, 21, 13), "tokens", (9, 13), 19),
    "wide language": (language(1, 40, 260), "tokens", (5, 260), 113),
    "one position": (language(3, 3, 5), "tokens", (1, 5), 1),
    "widths": ([("embedding", 7), ("gru", 18), ("gru", 5), ("position_linear", 9)], "tokens", (12, 30), 50),
    "a class for a text": ([("embedding", 8), ("relu", 0), ("gru", 20), ("linear", 4)], "tokens", (6, 11), 16),
    "narrow text": ([("embedding", 5), ("linear", 9)], "tokens", (3, 7), 21),
    "few texts": ([("embedding", 6), ("linear", 9)], "tokens", (4, 40), 21),
    "texts of one character": ([("embedding", 6), ("linear", 33), ("relu", 0), ("linear", 3)], "tokens", (2, 1), 7),
    "only a matrix": ([("linear", 7)], "image", (2, 3, 3), 20),
}


def make(name: str, seed: int = 0) -> tuple[Any, list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """A child with weights, and its data: x, y, and the order of a batch."""
    layers, kind, sizes, batch = CASES[name]
    random = np.random.default_rng(seed)
    child = _C.Child(layers, kind, sizes, batch)
    weights = [
        (
            random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            if len(shape) > 1
            else random.normal(size=shape) * 0.3 + 0.5
        )
        for shape in child.shapes
    ]
    weights = [w.astype(np.float32) for w in weights]
    child.set_weights(weights)
    count = batch + 7
    if kind == "image":
        x = random.normal(size=(count, *sizes)).astype(np.float32)
    else:
        x = random.integers(0, sizes[1], size=(count, sizes[0])).astype(np.int32)
    targets = (count, sizes[0]) if layers[-1][0] == "position_linear" else count
    y = random.integers(0, layers[-1][1], size=targets).astype(np.int32)
    return child, weights, x, y, random.permutation(count)[:batch].astype(np.int64)


def test_every_layer_has_a_reference() -> None:
    assert [row["name"] for row in _C.layer_table()] == list(LAYERS) == list(rounding.LAYERS)
    assert {name for layers, *_ in CASES.values() for name, _ in layers} == set(LAYERS)


def refused(gradients: list[np.ndarray], exact: list[np.ndarray], bounds: list[np.ndarray]) -> list[tuple[int, ...]]:
    """Where a gradient is farther from the exact one than rounding takes it: the tensor, and the place in it."""
    return [
        (k, *map(int, place))
        for k, (got, want, bound) in enumerate(zip(gradients, exact, bounds, strict=True))
        for place in np.argwhere(~(np.abs(got - want) <= bound))
    ]


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    """They are as near to the exact ones as rounding lets them be. And that is near: were one tap of one weight (for a
    matrix, one of its numbers) off by 1e-5 of its gradient, it would be seen."""
    child, weights, x, y, index = make(name)
    layers, *_, batch = CASES[name]
    y[index[: min(5, batch - 1)]] = -100
    if y.ndim == 2:
        y[:, 1::3] = -1
    running = child.running()
    loss = child.loss(x, y, index, MOMENTUM)
    gradients = child.gradients()
    exact, want, after = loss_and_gradients(layers, weights, running, x[index], y[index])
    assert loss == pytest.approx(exact, rel=1e-5)
    assert [g.shape for g in gradients] == [g.shape for g in want]
    bounds = error_bounds(layers, weights, x[index], y[index], want)
    assert not refused(gradients, want, bounds)
    sharpest = [float((bound / np.maximum(np.abs(g), 1e-30)).min()) for g, bound in zip(want, bounds, strict=True)]
    k = int(np.argmin([np.inf if s == 0 else s for s in sharpest]))
    tap = np.unravel_index(np.argmin(bounds[k] / np.maximum(np.abs(want[k]), 1e-30)), want[k].shape)
    want[k][tap] *= 1 + 1e-5
    assert refused(gradients, want, bounds) == [(k, *map(int, tap))]
    for got, stored in zip(child.running(), after, strict=True):
        np.testing.assert_allclose(got, stored, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["digits", "text", "deep language"])
def test_a_batch_without_a_counted_target_has_gradients_of_zeros(name: str) -> None:
    child, _, x, y, index = make(name)
    y[index] = -100
    assert child.loss(x, y, index) == 0
    assert not any(map(np.any, child.gradients()))


@pytest.mark.parametrize("name", ["language", "deep language", "widths"])
def test_gradients_by_finite_differences(name: str) -> None:
    """Along the gradient of one tensor the loss must rise by as much as it says; no other implementation is asked."""
    child, weights, x, y, index = make(name, seed=2)
    child.loss(x, y, index)
    for k, gradient in enumerate(child.gradients()):
        length = float(np.linalg.norm(gradient))
        losses = []
        for step in (1e-2, -1e-2):
            moved = list(weights)
            moved[k] = weights[k] + (step / length) * gradient
            child.set_weights(moved)
            losses.append(child.loss(x, y, index))
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(length, rel=0.02, abs=1e-4)


def test_a_scale_of_zero_and_equal_pixels() -> None:
    """Where a square holds its maximum more than once, the first one gets the gradient, as in torch."""
    child, weights, x, y, index = make("digits")
    weights[2][:] = 0
    x[:] = 1.0
    child.set_weights(weights)
    running = child.running()
    child.loss(x, y, index, MOMENTUM)
    _, gradients, _ = loss_and_gradients(CASES["digits"][0], weights, running, x[index], y[index])
    largest = max(float(np.abs(g).max()) for g in gradients)
    for got, want in zip(child.gradients(), gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * largest)


def test_a_mean_of_many_deviations() -> None:
    """Squares of distances from zero would cancel here: 100 times the variance's error, and more."""
    child, weights, x, y, index = make("digits")
    weights[1][:] = 1000.0
    child.set_weights(weights)
    running = child.running()
    child.loss(x, y, index, MOMENTUM)
    _, _, after = loss_and_gradients(CASES["digits"][0], weights, running, x[index], y[index])
    for got, want in zip(child.running()[:2], after[:2], strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5)


def test_a_variance_beside_a_mean_a_thousand_times_as_large() -> None:
    child = _C.Child(convnet(1, 1, 2), "image", (1, 8, 8), 100)
    weights = [np.zeros(shape, np.float32) for shape in child.shapes]
    weights[0][0, 0, 1, 1] = 1  # the convolution hands the image on
    child.set_weights(weights)
    x = np.random.default_rng(0).normal(1000, 1, (100, 1, 8, 8)).astype(np.float32)
    child.loss(x, np.zeros(100, np.int32), np.arange(100), 1.0)
    mean, variance = child.running()
    exact = x.astype(np.float64)
    assert mean[0] == pytest.approx(exact.mean(), rel=2e-7)
    assert variance[0] == pytest.approx(exact.var(ddof=1), rel=1e-6)


def test_a_nan_passes_a_relu_backward() -> None:
    """As in torch: the gradients that an example of NaNs reaches are the same ones."""
    child, weights, x, y, index = make("mlp")
    x[index[3]] = np.nan
    child.loss(x, y, index)
    _, exact, _ = loss_and_gradients(CASES["mlp"][0], weights, [], x[index], y[index], torch.float32)
    for got, want in zip(child.gradients(), exact, strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@pytest.mark.parametrize(("name", "fewer"), [("digits", 37), ("text", 50), ("deep language", 5), ("wide language", 33)])
def test_fewer_examples_than_a_batch(name: str, fewer: int) -> None:
    """What lies in the lanes of an earlier batch does not count."""
    child, _, x, y, index = make(name)
    child.loss(x, y, index, MOMENTUM)
    alone, *_ = make(name)
    alone.set_running(child.running())
    assert child.loss(x, y, index[:fewer], MOMENTUM) == alone.loss(x, y, index[:fewer], MOMENTUM)
    assert all(map(np.array_equal, child.gradients(), alone.gradients()))


NOISY = "def rule(p, g, m, *, lr):\n    m = 0.9 * m + drop(g, 0.25) + normal(0.01)\n    return p - lr * m * (1 - t / T), m\n"
REDUCING = (
    "def rule(p, g, m, k, *, lr):\n    m = 0.9 * m + drop(g, 0.25) / global_norm(g)\n    k = 0.5 * k + norm(m)\n"
    "    return p - lr * m / k * max_abs(p), m, k\n"
)


@pytest.mark.parametrize("rule", [NOISY, REDUCING], ids=["noise", "reductions"])
@pytest.mark.parametrize("name", ["digits", "text", "deep language"])
def test_steps_are_those_of_apply_rule(name: str, rule: str) -> None:
    """Gradients of the child, update by apply_rule on the side: the same bits, noise and states included."""
    program = nos_ext.compile_rule(rule)
    child, weights, x, y, _ = make(name)
    twin, *_ = make(name)
    batch = CASES[name][3]
    order = np.random.default_rng(3).integers(0, len(y), size=3 * batch)
    child.begin(program, 0.05, 10, 77)
    params, state = [w.copy() for w in weights], nos_ext.init_state(program, weights)
    losses = 0.0
    for step in range(3):
        twin.set_weights(params)
        losses += twin.loss(x, y, order[step * batch : (step + 1) * batch], 1 / (step + 1))
        nos_ext.apply_rule(program, params, twin.gradients(), state, lr=0.05, step=step + 1, total_steps=10, seed=77)
    assert child.run(x, y, order, 1e4) == (3, losses, True)
    assert all(map(np.array_equal, child.weights(), params))
    assert all(map(np.array_equal, child.running(), twin.running()))


def test_evaluation() -> None:
    """With the running statistics; over more examples than a batch and a last batch that is not full."""
    child, weights, x, y, index = make("digits")
    child.loss(x, y, index, 1.0)
    y[5] = -100
    loss, right, counted = child.evaluate(x, y)
    w = [torch.from_numpy(a).double() for a in weights]
    running = [torch.from_numpy(a).double() for a in child.running()]
    h = torch.from_numpy(x).double()
    for block in range(2):
        kernel, bias, scale, shift = w[4 * block : 4 * block + 4]
        h = torch.relu(torch.conv2d(h, kernel, bias, padding=1))
        h = torch.nn.functional.batch_norm(h, running[2 * block], running[2 * block + 1], scale, shift)
        h = torch.max_pool2d(h, 2)
    logits = torch.nn.functional.linear(h.flatten(1), w[-2], w[-1])
    keep = torch.from_numpy(y >= 0)
    targets = torch.from_numpy(y).long()[keep]
    assert counted == len(y) - 1
    assert loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[keep], targets, reduction="sum")), rel=1e-5
    )
    assert right == int((logits[keep].argmax(-1) == targets).sum())


def test_evaluation_of_texts() -> None:
    """A class at every position, some of them ignored, and a last batch that is not full."""
    name = "deep language"
    child, weights, x, y, _ = make(name)
    y[3:5] = -100
    y[:, 7] = -1
    loss, right, counted = child.evaluate(x, y)
    exact, _, _ = loss_and_gradients(CASES[name][0], weights, [], x, y)
    assert counted == (y >= 0).sum() == 8 * (len(y) - 2)
    assert loss / counted == pytest.approx(exact, rel=1e-5)
    alone = [child.evaluate(x[e : e + 1], y[e : e + 1]) for e in range(len(y))]
    assert (right, counted) == (sum(one[1] for one in alone), sum(one[2] for one in alone))
    y[:] = (y + 1) % 13
    assert child.evaluate(x, y)[1] != right


def test_a_loss_beyond_the_limit_ends_the_training() -> None:
    program = nos_ext.compile_rule("g")
    for lr, limit in ((1e30, 1e4), (float("nan"), 1e4), (0.0, 1e-3)):
        child, _, x, y, index = make("digits")
        child.begin(program, lr, None, 0)
        steps, _, alive = child.run(x, y, np.tile(index, 4), limit)
        assert not alive
        assert steps == (0 if limit < 1 else 1)


def digest() -> str:
    """Everything that a few steps of every case leave behind."""
    total = hashlib.sha256()
    for name in CASES:
        child, _, x, y, index = make(name)
        child.begin(nos_ext.compile_rule("m_hat / (sqrt(v_hat) + 1e-3)"), 0.05, None, 1)
        child.run(x, y, np.tile(index, 4), 1e4)
        for array in [*child.weights(), *child.running(), *child.gradients(), np.array(child.evaluate(x, y))]:
            total.update(array.tobytes())
    return total.hexdigest()


def test_same_bits_on_every_instruction_set() -> None:
    isas = [isa for isa in nos_ext.build_info()["cpu"]["isas"] if isa in ("avx2", "avx512")]
    code = "from tests.child.test_kernels import digest; from nos_ext import _C; print(_C.child_kernels(), digest())"
    answers = {}
    for isa in isas:
        out = python(code, env={**os.environ, "NOS_ISA": isa})
        assert out.returncode == 0, out.stderr
        name, answers[isa] = out.stdout.split()
        assert name == isa
    assert len(set(answers.values())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((107, 63), np.float32)}, "x has 6741 numbers; 107 examples need 6848"),
        ({"x": np.zeros((107, 64))}, "x is not a contiguous float32 array"),
        ({"y": np.full(107, 10, np.int32)}, r"y\[12\] is 10; classes are below 10"),
        ({"order": np.full(100, 107)}, r"order\[0\] is 107; there are 107 examples"),
        ({"order": np.full(100, -1)}, r"order\[0\] is -1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    child, weights, x, y, index = make("digits")
    child.begin(nos_ext.compile_rule("g"), 0.1, None, 0)
    given = {"x": x, "y": y, "order": index, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        child.run(given["x"], given["y"], given["order"], 1e4)
    assert all(map(np.array_equal, child.weights(), weights))


def test_classes_of_half_an_example_are_refused() -> None:
    child, _, x, y, index = make("deep language")
    with pytest.raises(ValueError, match="y has 10 classes; an example needs 9"):
        child.loss(x, y.ravel()[:10].copy(), index)
    with pytest.raises(ValueError, match="x has 234 numbers; 25 examples need 225"):
        child.loss(x, y[:25], index)


@pytest.mark.parametrize(
    ("name", "wrong", "message"), [("text", "x", "tokens are below 60"), ("digits", "y", "classes are below 10")]
)
def test_what_is_read_is_looked_at_and_nothing_else(name: str, wrong: str, message: str) -> None:
    """A stretch of training is short beside the examples of a large task. Evaluation reads all."""
    child, _, x, y, index = make(name)
    child.begin(nos_ext.compile_rule("g"), 0.1, None, 0)
    unread = min(set(range(len(y))) - set(index.tolist()))
    {"x": x, "y": y}[wrong][unread] = 77
    assert child.run(x, y, index, 1e4)[2]
    with pytest.raises(ValueError, match=message):
        child.evaluate(x, y)
    with pytest.raises(ValueError, match=message):
        child.run(x, y, np.append(index[1:], unread), 1e4)


@pytest.mark.parametrize(
    ("layers", "kind", "sizes", "message"),
    [
        ([("linear", 0)], "image", (1, 2, 2), r"layers\[0\]: outputs is 0"),
        ([("lineal", 3)], "image", (1, 2, 2), r"layers\[0\] is 'lineal', which is no layer"),
        ([], "image", (1, 2, 2), "layers is empty"),
        ([("convolution", 3), ("norm_pool", 0)], "image", (1, 4, 4), "must give one number per class"),
        ([("norm_pool", 0)], "image", (1, 1, 4), "below 2x2"),
        ([("embedding", 3)], "image", (1, 2, 2), "wants tokens"),
        ([("convolution", 3)], "tokens", (4, 5), "wants images"),
        ([("convolution", 3), ("relu", 0)], "image", (1, 2, 2), "wants a list of numbers or a text"),
        ([("gru", 3)], "image", (1, 2, 2), "gru: wants a text"),
        ([("gru", 3)], "tokens", (4, 5), "gru: wants a text"),
        ([("embedding", 3), ("linear", 4), ("gru", 3)], "tokens", (4, 5), "gru: wants a text"),
        ([("position_linear", 3)], "image", (1, 1, 4), "position_linear: wants a text"),
        ([("text_gru", 3)], "image", (1, 2, 2), "text_gru: wants tokens"),
        ([("linear", 3)], "tokens", (4, 5), "linear: cannot read tokens; begin with embedding or text_gru"),
        ([("embedding", 3), ("embedding", 3)], "tokens", (4, 5), "embedding: wants tokens, which only the first"),
        ([("embedding", 1), ("text_gru", 3)], "tokens", (1, 5), "text_gru: wants tokens"),
        ([("gru", 3)], "tokens", (1, 5), "gru: cannot read tokens"),
        ([("embedding", 3), ("text_gru", 3)], "tokens", (4, 5), "text_gru: wants tokens"),
        ([("linear", 3)], "sound", (4,), "input is"),
    ],
)
def test_networks_that_cannot_be(layers: Layers, kind: str, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _C.Child(layers, kind, sizes, 4)


def test_memory_is_bounded_and_told() -> None:
    child = _C.Child(convnet(2, 32, 10), "image", (1, 28, 28), 100)
    assert 20e6 < child.memory < 30e6
    gates = 64 * 4 * 96 * 32 * 4  # positions, gates, units, examples, bytes
    child = _C.Child(language(1, 96, 60), "tokens", (64, 60), 32)
    assert 2 * gates < child.memory < 3 * gates


@pytest.mark.parametrize(
    ("layers", "kind", "sizes", "message"),
    [
        ([("convolution", 3), ("linear", 2)], "image", (1, 1, 1), "norm_pool must follow each convolution"),
        ([("convolution", 3), *convnet(1, 3, 2)], "image", (1, 4, 4), "norm_pool must follow each convolution"),
        ([("convolution", 3)], "image", (1, 1, 1), "norm_pool must follow each convolution"),
        ([("norm_pool", 0), ("linear", 2)], "image", (1, 2, 2), "and nothing else"),
        ([("embedding", 3), ("linear", 2)], "tokens", (4, 0), "the vocabulary is 0"),
        ([("embedding", 3), ("linear", 2)], "tokens", (4, -5), "the vocabulary is -5"),
    ],
)
def test_networks_whose_gradients_would_be_wrong(
    layers: Layers, kind: str, sizes: tuple[int, ...], message: str
) -> None:
    """A convolution leaves the gradient through its positive part to the norm_pool behind it."""
    with pytest.raises(ValueError, match=message):
        _C.Child(layers, kind, sizes, 4)


@pytest.mark.parametrize(
    ("layers", "kind", "sizes", "batch"),
    [
        ([("linear", 2)], "image", (1, 1, 1), 2**31 - 1),
        ([("linear", 2)], "image", (2**16, 2**16, 2**16), 1),
        ([("linear", 2**31 - 1)], "image", (1, 1, 1), 1),
        ([("linear", 2**20), ("relu", 0), ("linear", 2**20)], "image", (1, 1, 1), 1),
        (convnet(1, 2**25, 2), "image", (1, 2, 2), 16),
        (language(1, 2**29, 2), "tokens", (1, 2), 1),
        (language(1, 1, 2), "tokens", (1, 2**31 - 1), 1),
        (language(1, 2, 2), "tokens", (2**31 - 1, 2), 1),
        ([("embedding", 2**20), ("linear", 2**20)], "tokens", (64, 2), 4),
        ([("embedding", 2), ("linear", 2**31 - 1)], "tokens", (2, 2), 4),
    ],
)
def test_networks_beyond_all_memory(layers: Layers, kind: str, sizes: tuple[int, ...], batch: int) -> None:
    with pytest.raises(MemoryError):
        _C.Child(layers, kind, sizes, batch)


@pytest.mark.parametrize("pixel", range(4))
def test_a_pixel_that_is_no_number_is_not_lost(pixel: int) -> None:
    """Wherever in its square it lies, as in torch. It comes from an infinite pixel and a scale of zero, so the other
    pixels of the square stay numbers."""
    child = _C.Child(convnet(1, 2, 3), "image", (1, 2, 2), 1)
    weights = [np.ones(shape, np.float32) for shape in child.shapes]
    weights[0][:] = 0
    weights[0][:, :, 1, 1] = 1e30
    weights[2][:] = 0
    child.set_weights(weights)
    x, y = np.zeros((1, 1, 2, 2), np.float32), np.zeros(1, np.int32)
    assert np.isfinite(child.evaluate(x, y)[0])
    x.flat[pixel] = 1e30
    assert np.isnan(child.evaluate(x, y)[0])


def test_subnormals_count_whatever_the_caller_s_thread_does_with_them() -> None:
    child, _, x, y, index = make("mlp")
    x *= np.float32(1e-39)
    want = child.loss(x, y, index), [g.tobytes() for g in child.gradients()]
    assert torch.set_flush_denormal(True)
    try:
        got = child.loss(x, y, index), [g.tobytes() for g in child.gradients()]
    finally:
        torch.set_flush_denormal(False)
    assert got == want


def test_two_threads_may_not_use_one_child() -> None:
    child, _, x, y, index = make("digits")
    child.begin(nos_ext.compile_rule("g"), 0.01, None, 0)
    order = np.tile(index, 2000)
    other = threading.Thread(target=lambda: child.run(x, y, order, 1e9))
    other.start()

    def refused() -> bool:
        try:
            child.set_running(child.running())
        except RuntimeError as error:
            return "another thread is using this Child" in str(error)
        assert other.is_alive(), "it trained to the end unseen"
        return False

    wait_until(refused, pause=0.0)
    other.join()
    assert child.run(x, y, index, 1e9)[0] == 1


def test_running_statistics_of_another_network_are_refused() -> None:
    child, *_ = make("digits")
    before = child.running()
    changed = [np.full_like(r, 7) for r in before]
    for wrong in (changed[:3], [*changed, changed[0]], [*changed[:3], changed[3][:2]]):
        with pytest.raises(ValueError, match="running"):
            child.set_running(wrong)
    assert all(map(np.array_equal, child.running(), before))


def test_an_order_that_ends_within_a_batch_is_refused() -> None:
    child, _, x, y, index = make("digits")
    child.begin(nos_ext.compile_rule("g"), 0.1, None, 0)
    with pytest.raises(ValueError, match="order has 150 examples; pass a multiple of 100"):
        child.run(x, y, np.append(index, index[:50]), 1e4)
