"""The library: every rule reads, matches torch.optim where torch has it, and says where it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext.optim import library

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
LR = 0.01

TORCH: list[tuple[str, dict[str, float], Make]] = [
    ("sgd", {}, lambda p: torch.optim.SGD(p, LR)),
    ("sgd", {"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, LR, weight_decay=0.1)),
    ("momentum", {}, lambda p: torch.optim.SGD(p, LR, momentum=0.9)),
    ("momentum", {"momentum": 0.5, "dampening": 0.3}, lambda p: torch.optim.SGD(p, LR, momentum=0.5, dampening=0.3)),
    ("momentum", {"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, LR, momentum=0.9, weight_decay=0.1)),
    ("nesterov", {}, lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True)),
    (
        "nesterov",
        {"weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    ("adam", {}, lambda p: torch.optim.Adam(p, LR)),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.95), eps=1e-3),
    ),
    ("adam", {"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, LR, weight_decay=0.1)),
    ("adamw", {}, lambda p: torch.optim.AdamW(p, LR)),
    ("adamw", {"weight_decay": 0.3}, lambda p: torch.optim.AdamW(p, LR, weight_decay=0.3)),
    ("rmsprop", {}, lambda p: torch.optim.RMSprop(p, LR)),
    ("rmsprop", {"alpha": 0.9, "weight_decay": 0.1}, lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, weight_decay=0.1)),
    ("adagrad", {}, lambda p: torch.optim.Adagrad(p, LR)),
    (
        "adagrad",
        {"lr_decay": 0.05, "weight_decay": 0.1},
        lambda p: torch.optim.Adagrad(p, LR, lr_decay=0.05, weight_decay=0.1),
    ),
    ("amsgrad", {}, lambda p: torch.optim.Adam(p, LR, amsgrad=True)),
    (
        "amsgrad",
        {"beta1": 0.8, "beta2": 0.5, "eps": 1e-3, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.5), eps=1e-3, weight_decay=0.1, amsgrad=True),
    ),
    ("nadam", {}, lambda p: torch.optim.NAdam(p, LR)),
    (
        "nadam",
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "momentum_decay": 0.1, "weight_decay": 0.1},
        lambda p: torch.optim.NAdam(p, LR, betas=(0.8, 0.95), eps=1e-3, momentum_decay=0.1, weight_decay=0.1),
    ),
    ("radam", {}, lambda p: torch.optim.RAdam(p, LR)),
    (
        "radam",
        {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
        lambda p: torch.optim.RAdam(p, LR, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
    ),
    ("adamax", {}, lambda p: torch.optim.Adamax(p, LR)),
    (
        "adamax",
        {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
        lambda p: torch.optim.Adamax(p, LR, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
    ),
    ("adadelta", {}, lambda p: torch.optim.Adadelta(p, LR)),
    (
        "adadelta",
        {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.1},
        lambda p: torch.optim.Adadelta(p, LR, rho=0.7, eps=1e-3, weight_decay=0.1),
    ),
    ("rprop", {}, lambda p: torch.optim.Rprop(p, LR)),
    (
        "rprop",
        {"eta_minus": 0.3, "eta_plus": 1.5, "step_min": 1e-3, "step_max": 0.05},
        lambda p: torch.optim.Rprop(p, LR, etas=(0.3, 1.5), step_sizes=(1e-3, 0.05)),
    ),
    ("adafactor", {}, lambda p: torch.optim.Adafactor(p, LR, eps=(1.1920929e-07, 0.001))),
    (
        "adafactor",
        {"beta2_decay": -0.6, "eps1": 1e-3, "eps2": 0.1, "d": 1.5, "weight_decay": 0.1},
        lambda p: torch.optim.Adafactor(p, LR, beta2_decay=-0.6, eps=(1e-3, 0.1), d=1.5, weight_decay=0.1),
    ),
]


@pytest.fixture
def in_float64() -> Iterator[None]:
    """torch keeps NAdam's product of all momenta in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("name", "hyper", "make"), TORCH, ids=[f"{name}-{hyper}" for name, hyper, _ in TORCH])
def test_fifty_steps_of_torch(name: str, hyper: dict[str, float], make: Make) -> None:
    program = library.get(name).compile()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(31, generator=generator, dtype=torch.float64)
    theirs, ours = start.clone(), [start.clone()]
    optimizer = make([theirs])
    state = nos_ext.init_state(program, ours)
    for step in range(1, 51):
        g = torch.randn(31, generator=generator, dtype=torch.float64)
        g[::7] = 0
        theirs.grad = g.clone()
        optimizer.step()
        nos_ext.apply_rule(program, ours, [g], state, lr=LR, step=step, **hyper)
    assert torch.allclose(ours[0], theirs, rtol=1e-12, atol=1e-12)


def test_defaults_are_torch_s() -> None:
    expected: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "amsgrad": torch.optim.Adam,
        "nadam": torch.optim.NAdam,
        "radam": torch.optim.RAdam,
        "adamax": torch.optim.Adamax,
        "adadelta": torch.optim.Adadelta,
        "rprop": torch.optim.Rprop,
    }
    for name, optimizer in expected.items():
        defaults = optimizer([torch.zeros(1)]).defaults
        mine = dict(library.get(name).hyperparameters)
        if "betas" in defaults:
            defaults["beta1"], defaults["beta2"] = defaults["betas"]
        if "etas" in defaults:
            defaults["eta_minus"], defaults["eta_plus"] = defaults["etas"]
            defaults["step_min"], defaults["step_max"] = defaults["step_sizes"]
        for key, value in mine.items():
            assert key == "lr" or value == defaults[key], (name, key)


def run(name: str, lr: float, gradients: list[float], **arguments: Any) -> list[float]:
    program = library.get(name).compile()
    params = [np.array([1.0])]
    state = nos_ext.init_state(program, params)
    out = []
    for step, g in enumerate(gradients, 1):
        decay = arguments.get("sign_decay", lambda s: 1.0)(step - 1)
        rest = {key: value for key, value in arguments.items() if key != "sign_decay"}
        params, state = program.reference(params, [np.array([g])], state, lr=lr, step=step, sign_decay=decay, **rest)
        out.append(float(params[0][0]))
    return out


TENSORFLOW = [0.1] * 4 + [-0.1] * 3


def test_tensorflow_s_power_sign_and_add_sign() -> None:
    """The cases of TensorFlow's own tests; the decay there counts steps from 0."""
    from nos_ext.schedules import linear_decay

    linear = linear_decay(10)
    power = [0.8912687269, 0.8949475213, 0.8986263157, 0.9258091340]
    assert np.allclose(run("powersign", 0.1, TENSORFLOW)[3:], power, atol=5e-11)
    assert np.allclose(run("powersign", 0.1, TENSORFLOW, base=10, beta=0.8)[3:], [0.6, 0.601, 0.602, 0.702], atol=1e-12)
    linear_power = [0.9058282142, 0.9113163306, 0.9173816372, 0.9322998842]
    assert np.allclose(run("powersign", 0.1, TENSORFLOW, sign_decay=linear)[3:], linear_power, atol=5e-11)
    assert np.allclose(run("addsign", 0.1, TENSORFLOW)[3:], [0.92, 0.92, 0.92, 0.94], atol=1e-12)
    small = [0.9956, 0.9947, 0.9938, 0.9949]
    assert np.allclose(run("addsign", 0.01, TENSORFLOW, alpha=0.1, beta=0.8)[3:], small, atol=1e-12)
    assert np.allclose(run("addsign", 0.1, TENSORFLOW, sign_decay=linear)[3:], [0.926, 0.93, 0.935, 0.949], atol=1e-12)


def test_lion_and_signum() -> None:
    program = library.lion.compile()
    params = [np.ones(10)]
    state = nos_ext.init_state(program, params)
    for step in range(1, 6):
        g = np.full(10, 0.01) if step == 1 else np.arange(1, 11) / 10
        params, state = program.reference(params, [g], state, lr=0.001, step=step)
        assert np.allclose(params[0], 1 - 0.001 * step, atol=1e-12)
    (p,), state = library.signum.reference([np.array([1.0, 2.0])], [np.array([3.0, -4.0])], [[np.zeros(2)]], lr=0.5)
    assert p.tolist() == [0.5, 2.5]
    assert np.allclose(state["m"][0], [0.3, -0.4])


Vector = np.ndarray[Any, np.dtype[np.float64]]


def _adan(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 1 of the paper, whose betas are 1 minus ours, with the bias corrections of the authors' code."""
    b1, b2, b3 = 0.02, 0.08, 0.01
    m, v, n, last = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), gradients[0]
    for k, g in enumerate(gradients, 1):
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - last)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - last)) ** 2
        hats = [x / (1 - (1 - b) ** k) for x, b in ((m, b1), (v, b2), (n, b3))]
        p = (p - lr / (np.sqrt(hats[2]) + 1e-8) * (hats[0] + (1 - b2) * hats[1])) / (1 + lr * weight_decay)
        last = g
    return p


def _adabelief(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 2 of the paper, with the weight decay of AdamW."""
    m, s = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16
        p = p - lr * weight_decay * p - lr * (m / (1 - 0.9**k)) / (np.sqrt(s / (1 - 0.999**k)) + 1e-16)
    return p


def _ademamix(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 1 of the paper with the schedulers of its section 3, over 30 steps."""
    m1, m2, n, length = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), 30
    for k, g in enumerate(gradients, 1):
        a, start, end = k / length, math.log(0.9), math.log(0.9999)
        alpha = min(a * 5, 5)
        b3 = min(math.exp(start * end / ((1 - a) * end + a * start)), 0.9999) if k < length else 0.9999
        m1, m2 = 0.9 * m1 + 0.1 * g, b3 * m2 + (1 - b3) * g
        n = 0.999 * n + 0.001 * g**2
        step = (m1 / (1 - 0.9**k) + alpha * m2) / (np.sqrt(n / (1 - 0.999**k)) + 1e-8)
        p = p - lr * (step + weight_decay * p)
    return p


def _schedule_free(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 1 of the paper, with a warm-up of 10 steps and three sequences; what is returned is y."""
    x, z, y, v, squares = p, p, p, np.zeros_like(p), 0.0
    for k, g in enumerate(gradients, 1):
        rate = lr * min(1, k / 10)
        squares += rate**2
        v = 0.999 * v + 0.001 * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - 0.999**k)) + 1e-8) + weight_decay * y)
        c = rate**2 / squares
        x = (1 - c) * x + c * z
        y = 0.1 * z + 0.9 * x
    return y


def _lamb(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 2 of the paper, with phi(z) = z."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        r = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-6) + weight_decay * p
        p = p - lr * np.linalg.norm(p) / np.linalg.norm(r) * r
    return p


def _lars(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 1 of the paper."""
    v = np.zeros_like(p)
    for g in gradients:
        local = 0.2 * np.linalg.norm(p) / (np.linalg.norm(g) + weight_decay * np.linalg.norm(p))
        v = 0.9 * v + lr * local * (g + weight_decay * p)
        p = p - v
    return p


def _stable_adamw(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 2 of the paper."""
    v, u = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        b1, b2 = [b * (1 - b ** (k - 1)) / (1 - b**k) for b in (0.9, 0.99)]
        v, u = b1 * v + (1 - b1) * g, b2 * u + (1 - b2) * g * g
        rms = math.sqrt((g * g / np.maximum(u, 1e-16)).mean())
        rate = lr / max(1.0, rms)
        p = p - rate * weight_decay * p - rate * v / (np.sqrt(u) + 1e-8)
    return p


def _normalized_sgd(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """The update of the paper's section 2."""
    m = np.zeros_like(p)
    for g in gradients:
        m = 0.9 * m + 0.1 * (g + weight_decay * p)
        p = p - lr * m / np.linalg.norm(m)
    return p


def _cautious_adamw(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    """Algorithm 2 of the paper, with the scale of the authors' code."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        u = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        mask = (u * g > 0).astype(float)
        p = p * (1 - lr * weight_decay) - lr * u * mask / max(mask.mean(), 1e-3)
    return p


def _cautious_lion(p: Vector, gradients: list[Vector], lr: float, weight_decay: float) -> Vector:
    m = np.zeros_like(p)
    for g in gradients:
        u = np.sign(0.9 * m + 0.1 * g)
        mask = (u * g > 0).astype(float)
        p = p * (1 - lr * weight_decay) - lr * u * mask / max(mask.mean(), 1e-3)
        m = 0.99 * m + 0.01 * g
    return p


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "formula", "hyper"),
    [
        ("adan", _adan, {}),
        ("adabelief", _adabelief, {}),
        ("ademamix", _ademamix, {"warmup_steps": 30}),
        ("schedule_free_adamw", _schedule_free, {"warmup_steps": 10}),
        ("lamb", _lamb, {}),
        ("lars", _lars, {"trust_coefficient": 0.2}),
        ("stable_adamw", _stable_adamw, {}),
        ("normalized_sgd", _normalized_sgd, {}),
        ("cautious_adamw", _cautious_adamw, {}),
        ("cautious_lion", _cautious_lion, {}),
    ],
)
def test_fifty_steps_of_the_paper(name: str, formula: Any, hyper: dict[str, float], weight_decay: float) -> None:
    rng = np.random.default_rng(3)
    start = rng.standard_normal(31)
    gradients = [rng.standard_normal(31) for _ in range(50)]
    ours = [start.copy()]
    program = library.get(name).compile()
    state = nos_ext.init_state(program, ours)
    for step, g in enumerate(gradients, 1):
        nos_ext.apply_rule(program, ours, [g], state, lr=LR, step=step, weight_decay=weight_decay, **hyper)
    expected = formula(start, gradients, LR, weight_decay)
    assert np.abs(expected - start).max() > 0.05
    assert np.allclose(ours[0], expected, rtol=1e-12, atol=1e-12)


def test_hyperball_keeps_the_norm_of_every_tensor() -> None:
    """Beside section 3 of its paper: R Normalize(W - lr R Normalize(u)), with the R of the start."""
    rng = np.random.default_rng(5)
    program = library.adamh.compile()
    ours = [rng.standard_normal((6, 4)), rng.standard_normal(31)]
    theirs, sizes = [p.copy() for p in ours], [np.linalg.norm(p) for p in ours]
    m, v = [np.zeros_like(p) for p in ours], [np.zeros_like(p) for p in ours]
    state = nos_ext.init_state(program, ours)
    for k in range(1, 51):
        grads = [rng.standard_normal(p.shape) for p in ours]
        nos_ext.apply_rule(program, ours, grads, state, lr=0.03, step=k)
        for i, g in enumerate(grads):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
            u = m[i] / (1 - 0.9**k) / (np.sqrt(v[i] / (1 - 0.999**k)) + 1e-8)
            w = theirs[i] - 0.03 * sizes[i] * u / np.linalg.norm(u)
            theirs[i] = sizes[i] * w / np.linalg.norm(w)
    for got, want, size in zip(ours, theirs, sizes, strict=True):
        assert np.allclose(got, want, rtol=1e-12, atol=1e-12)
        assert np.linalg.norm(got) == pytest.approx(size, rel=1e-14)


def test_trust_is_one_where_there_is_nothing_to_divide() -> None:
    for rule in (library.lamb, library.lars):
        program = rule.compile()
        params, grads = [np.zeros(3), np.ones(3), np.ones(3)], [np.ones(3), np.zeros(3), np.ones(3)]
        nos_ext.apply_rule(program, params, grads, nos_ext.init_state(program, params), lr=0.1, weight_decay=0)
        assert all(np.isfinite(p).all() for p in params)
        assert (params[0] < 0).all()
        assert (params[1] == 1).all()


def test_ademamix_without_warm_up_is_at_its_final_values() -> None:
    program = library.ademamix.compile()
    runs = []
    for steps in (0, 1):
        params = [np.array([1.0, -2.0])]
        state = nos_ext.init_state(program, params)
        for step in range(1, 4):
            nos_ext.apply_rule(program, params, [np.array([0.3, 0.4])], state, lr=0.1, step=step, warmup_steps=steps)
        runs.append((params[0].tolist(), state["slow"][0].tolist()))
    assert runs[0] == runs[1]
    assert runs[0][1] == pytest.approx([0.3 * (1 - 0.9999**3), 0.4 * (1 - 0.9999**3)], rel=1e-12)


def test_names_and_attributes() -> None:
    first = (
        "sgd momentum nesterov adam adamw rmsprop adagrad lion signum powersign addsign amsgrad nadam radam adamax "
        "adadelta rprop adan adabelief ademamix schedule_free_adamw lamb lars stable_adamw adamh normalized_sgd "
        "adafactor cautious_adamw cautious_lion muon"
    )
    assert " ".join(library.names()[:30]) == first
    assert len(library.names()) == 46
    assert library.adamw is library.get("adamw")
    assert isinstance(library.adamw, nos_ext.Rule)
    assert set(library.names()) <= set(dir(library))
    with pytest.raises(AttributeError, match="did you mean 'adam'"):
        _ = library.adams
    with pytest.raises(KeyError, match="no rule 'zzz'; sgd, momentum"):
        library.get("zzz")
    with pytest.raises(KeyError, match="no rule 'AdamW2'; did you mean 'adamw' or 'adam"):
        library.get("AdamW2")
    for name in library.names():
        rule = library.get(name)
        assert rule.name == name
        assert rule.doc
        entry = library.ENTRIES[name]
        assert entry.source
        assert entry.use.endswith(".")


def test_every_hyperparameter_has_a_range_that_holds_its_default() -> None:
    for name in library.names():
        entry = library.ENTRIES[name]
        hyperparameters = library.get(name).hyperparameters
        assert set(entry.ranges) <= set(hyperparameters), name
        for hyper, default in hyperparameters.items():
            limits = entry.range_of(hyper)
            assert limits is not None, f"{name}: give {hyper} a range in the entry"
            assert default is None or limits.low <= default <= limits.high, (name, hyper)


def test_the_entry_of_a_program() -> None:
    for name in library.names():
        rule = library.get(name)
        for contract in (False, True):
            assert library.entry_of(rule.compile(contract=contract)) is library.ENTRIES[name]
    assert library.entry_of(library.adamw.replaced(name="adam").compile()) is None
    assert library.entry_of(library.adamw.replaced(name="mine").compile()) is None


def test_found_rules_run() -> None:
    """Every rule makes finite steps that depend on the gradient."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal(64)
    for rule in library.rules():
        p = [np.full(64, 0.5)]
        state = nos_ext.init_state(rule.compile(), p)
        first, states = rule.reference(p, [g], state, lr=0.1)
        (new,), _ = rule.reference(first, [0.5 * g], states, lr=0.1, step=2)
        assert np.isfinite(new).all(), rule.name
        assert not np.array_equal(new, p[0]), rule.name
    assert math.isclose(library.powersign.hyperparameters["base"] or 0, math.e)
