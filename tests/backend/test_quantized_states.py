"""States in int8 and uint8: to the bit as docs/numerics.md says, within its bound, on every way through the engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C
from nos_ext.optim import library
from tests.fresh import python

from ..reference import codes as oracle
from ..reference.random_words import word

STORE = nos_ext.compile_rule("def store(p, g, x, *, lr):\n    return p, g\n")
LOAD = nos_ext.compile_rule("def load(p, g, x, *, lr):\n    return x, x\n")
ADAM = library.adam.compile()
DTYPES = ["int8", "uint8"]


@pytest.fixture(autouse=True)
def restore_tuning() -> Iterator[None]:
    yield
    _C.set_tuning()


def stored(x: np.ndarray, dtype: str, **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    codes = np.zeros(x.shape, dtype)
    scales = np.zeros(-(-x.size // 256), np.float32)
    nos_ext.apply_rule(STORE, [np.zeros_like(x)], [x], {"x": [codes], "x.scale": [scales]}, lr=1.0, **arguments)
    return codes, scales


def loaded(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    out = np.zeros(codes.shape, np.float32)
    before = codes.copy(), scales.copy()
    nos_ext.apply_rule(LOAD, [out], [np.zeros_like(out)], {"x": [codes], "x.scale": [scales]}, lr=1.0)
    assert (codes == before[0]).all()  # what a rule leaves alone is not written
    np.testing.assert_array_equal(scales, before[1])
    return out


def samples(dtype: str, count: int = 256 * 9 + 77) -> np.ndarray:
    """Blocks of every size of numbers: like a moment's, of one size, tiny, huge, and with zeros."""
    make = np.random.default_rng(3)
    n = 256 * 9 + 77
    x = make.normal(size=n) * np.exp(make.normal(size=n))
    x[256:512] *= 1e-30
    x[512:768] *= 1e33
    x[768:1024] = np.ldexp(make.uniform(0.5, 1, 256), make.integers(-140, 10, 256))
    x[1024:1280] = 0
    x[1100] = 3e-39
    x[1280:1536] = np.where(make.random(256) < 0.5, 0, x[1280:1536])
    x[1536:1792] = 0
    x[1792:2048] = 0.37
    x = x.astype(np.float32)[:count]
    return x if dtype == "int8" else np.abs(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_the_bit(dtype: str) -> None:
    x = samples(dtype)
    codes, scales = stored(x, dtype)
    wanted, wanted_scales = oracle.encode(x, dtype)
    np.testing.assert_array_equal(scales, wanted_scales)
    np.testing.assert_array_equal(codes, wanted)
    np.testing.assert_array_equal(loaded(codes, scales), oracle.decode(codes, scales))


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_to_the_bit(dtype: str) -> None:
    x = samples(dtype)
    seed, step, index = 0x123456789ABCDEF, 7, 3
    codes, scales = stored(x, dtype, seed=seed, step=step, tensor_index=index, stochastic_rounding=True)
    words = [word(seed, step, index, 1, i) for i in range(len(x))]
    wanted, wanted_scales = oracle.encode(x, dtype, words)
    np.testing.assert_array_equal(scales, wanted_scales)
    np.testing.assert_array_equal(codes, wanted)
    assert (codes != stored(x, dtype)[0]).any()
    np.testing.assert_array_equal(
        codes, stored(x, dtype, seed=seed, step=step, tensor_index=index, stochastic_rounding="states")[0]
    )


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_within_the_bound(dtype: str, stochastic: bool) -> None:
    x = samples(dtype)
    bound = oracle.bound(x, dtype, stochastic=stochastic)
    for seed in range(20 if stochastic else 1):
        found = loaded(*stored(x, dtype, seed=seed, stochastic_rounding=stochastic)).astype(np.float64)
        assert (np.abs(found - x) <= bound).all()
        assert (np.sign(found) == np.sign(x)).all()  # zeros stay zeros, and nothing else becomes one


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_codes_hold_comes_back(dtype: str) -> None:
    """A block with the largest code is stored as it was read, to the nearest and nearly always when it is drawn, but for
    the last bit of its scale."""
    info = np.iinfo(dtype)
    codes = np.random.default_rng(1).integers(-127 if info.min else 0, info.max, 2048, dtype, endpoint=True)
    codes[::256] = info.max
    scales = np.float32(2.0) ** np.arange(-60, 60, 15, dtype=np.float32) * np.float32(1.37)
    again, new = stored(oracle.decode(codes, scales), dtype)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(new, scales, rtol=2.0**-23)
    changed = 0
    for seed in range(50):
        again, new = stored(oracle.decode(codes, scales), dtype, seed=seed, stochastic_rounding=True)
        changed += np.count_nonzero(again != codes)
        assert np.abs(again.astype(int) - codes).max() <= 1
        np.testing.assert_allclose(new, scales, rtol=2.0**-23)
    assert changed <= 50 * len(codes) * 2.0**-14


@pytest.mark.parametrize("dtype", DTYPES)
def test_unbiased(dtype: str) -> None:
    """The mean over seeds is the number, within 5 standard errors, from the first code on."""
    x = samples("uint8", 256)
    x[0] = x.max() * 2
    k = float(x.max()) / oracle.LARGEST[dtype] ** 2
    found = np.stack([loaded(*stored(x, dtype, seed=s, stochastic_rounding=True)) for s in range(400)]).astype("f8")
    size = x.astype(np.float64)
    lower = np.floor(np.sqrt(size / k * (1 + 1e-6)))
    error = (2 * lower + 1) * k / 2 / np.sqrt(len(found))
    counted = size > k
    assert counted.mean() > 0.9
    assert (np.abs(found.mean(0) - size) <= 5 * error + 1e-6 * size)[counted].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stochastic", [False, True])
def test_what_is_not_finite_takes_its_block(dtype: str, bad: float, stochastic: bool) -> None:
    x = samples("uint8", 1000)
    x[700] = bad
    codes, scales = stored(x, dtype, stochastic_rounding=stochastic)
    assert np.isnan(scales).tolist() == [False, False, True, False]
    assert (codes[512:768] == 0).all()
    assert np.isnan(loaded(codes, scales)).nonzero()[0].tolist() == list(range(512, 768))


def test_a_negative_number_is_nothing_that_uint8_holds() -> None:
    x = samples("uint8", 600)
    x[3] = -1e-30
    x[300] = -0.0
    codes, scales = stored(x, "uint8")
    assert np.isnan(scales).tolist() == [True, False, False]
    assert codes[300] == 0


def adam_steps(stochastic: Any, sizes: tuple[int, ...] = (1, 255, 256, 257, 5000, 70001)) -> list[np.ndarray]:
    """Three steps of Adam on int8 states: everything that they write."""
    make = np.random.default_rng(5)
    params = [make.normal(size=n).astype(np.float32) for n in sizes]
    state = nos_ext.init_state(ADAM, params, state_dtype="int8")
    for step in (1, 2, 3):
        grads = [make.normal(size=n).astype(np.float32) * np.float32(0.1) for n in sizes]
        nos_ext.apply_rule(
            ADAM, params, grads, state, lr=1e-2, step=step, seed=9, stochastic_rounding=stochastic, grad_scale=2.0
        )
    return [*params, *(x for one in state.values() for x in one)]


def test_states_of_adam() -> None:
    """m is int8 and v, which is never negative, uint8. A step is that on float32 states, stored as the oracle does."""
    sizes = (1, 255, 256, 257, 5000)
    make = np.random.default_rng(6)
    params = [make.normal(size=n).astype(np.float32) for n in sizes]
    state = nos_ext.init_state(ADAM, params, state_dtype="int8")
    assert [*state] == ["m", "v", "m.scale", "v.scale"]
    assert {x.dtype.name for x in state["m"]} == {"int8"}
    assert {x.dtype.name for x in state["v"]} == {"uint8"}
    wide = nos_ext.init_state(ADAM, params)
    for step in range(1, 6):
        grads = [make.normal(size=n).astype(np.float32) for n in sizes]
        others = [p.copy() for p in params]
        for name in ("m", "v"):
            for x, codes, scales in zip(wide[name], state[name], state[name + ".scale"], strict=True):
                x[:] = oracle.decode(codes, scales)
        nos_ext.apply_rule(ADAM, params, grads, state, lr=1e-2, step=step)
        nos_ext.apply_rule(ADAM, others, grads, wide, lr=1e-2, step=step)
        for i in range(len(sizes)):
            np.testing.assert_array_equal(params[i], others[i])
            for name in ("m", "v"):
                codes, scales = oracle.encode(wide[name][i], state[name][i].dtype.name)
                np.testing.assert_array_equal(state[name][i], codes)
                np.testing.assert_array_equal(state[name + ".scale"][i], scales)


@pytest.mark.parametrize("stochastic", [False, "states"])
@pytest.mark.parametrize(
    "tuning", [{"block": 4}, {"block": 512}, {"block": 1000}, {"chunk": 300}, {"threads": 3, "chunk": 1024}, {"block": 900, "chunk": 2000}]
)  # fmt: skip
def test_same_bits_however_the_work_is_cut(tuning: dict[str, int], stochastic: Any) -> None:
    wanted = adam_steps(stochastic)
    _C.set_tuning(**tuning)
    for a, b in zip(adam_steps(stochastic), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@functools.cache
def digest(**changed: str) -> str:
    """Of all that the steps below leave behind, in a process with these variables."""
    program = (
        "import hashlib; from tests.backend.test_quantized_states import adam_steps, reducing_steps\n"
        "h = hashlib.sha256()\n"
        "for s in (False, True):\n"
        "    for x in adam_steps(s) + reducing_steps(s): h.update(x.tobytes())\n"
        "print(h.hexdigest())"
    )
    done = python(program, cwd=Path(__file__).parents[2], env=os.environ | changed)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("isa", nos_ext.build_info()["cpu"]["isas"])
@pytest.mark.parametrize("native", ["0", "1"])
def test_same_bits_on_every_instruction_set(isa: str, native: str) -> None:
    assert digest(NOS_ISA=isa, NOS_NATIVE=native) == digest()


def reducing_steps(stochastic: Any) -> list[np.ndarray]:
    """The same for a rule with a norm between reading and writing its states."""
    make = np.random.default_rng(7)
    params = [make.normal(size=n).astype(np.float32) for n in (300, 4099, 300_000)]
    rule = library.lamb.compile()
    state = nos_ext.init_state(rule, params, state_dtype="int8")
    for step in (1, 2):
        grads = [make.normal(size=p.size).astype(np.float32) for p in params]
        nos_ext.apply_rule(rule, params, grads, state, lr=1e-2, step=step, stochastic_rounding=stochastic)
    return [*params, *(x for one in state.values() for x in one)]


@pytest.mark.parametrize("tuning", [{"block": 8}, {"chunk": 256, "threads": 2}])
def test_rules_with_reductions(tuning: dict[str, int]) -> None:
    wanted = reducing_steps("states")
    _C.set_tuning(**tuning)
    for a, b in zip(reducing_steps("states"), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isfinite(x).all() for x in wanted)


def test_states_of_several_dtypes_in_one_call() -> None:
    """None stands for the scales of a tensor that has none, and a state without any needs no key."""
    make = np.random.default_rng(8)
    grads = [make.normal(size=700).astype(np.float32) for _ in range(2)]
    params = [np.ones(700, np.float32) for _ in range(2)]
    v = [np.zeros(700, np.float32) for _ in range(2)]
    m: list[Any] = [np.zeros(700, np.int8), np.zeros(700, np.float32)]
    scales = [np.zeros(3, np.float32), None]
    nos_ext.apply_rule(ADAM, params, grads, {"m": m, "v": v, "m.scale": scales}, lr=0.1)
    wide = nos_ext.init_state(ADAM, params)
    nos_ext.apply_rule(ADAM, [x.copy() for x in params], grads, wide, lr=0.1)
    for i in range(2):
        np.testing.assert_array_equal(v[i], wide["v"][i])
    np.testing.assert_array_equal(m[1], wide["m"][1])
    codes, wanted = oracle.encode(wide["m"][0], "int8")
    np.testing.assert_array_equal(m[0], codes)
    np.testing.assert_array_equal(scales[0], wanted)


def test_memory_order_decides_which_elements_make_a_block() -> None:
    x = torch.from_numpy(samples("int8", 40 * 50)).reshape(40, 50)
    turned = x.t()  # the same memory
    kinds = {}
    for name, g in (("plain", x), ("turned", turned)):
        p = torch.empty_like(g)
        codes, scales = torch.zeros_like(g, dtype=torch.int8), torch.zeros(8)
        nos_ext.apply_rule(STORE, [p], [g], {"x": [codes], "x.scale": [scales]}, lr=1.0)
        kinds[name] = codes, scales
    assert torch.equal(kinds["plain"][0], kinds["turned"][0].t())
    assert torch.equal(kinds["plain"][1], kinds["turned"][1])


def codes_and_scales(n: int = 300) -> dict[str, list[Any]]:
    return {"x": [np.zeros(n, np.int8)], "x.scale": [np.zeros(-(-n // 256), np.float32)]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no scales": ({"x": [np.zeros(300, np.int8)]}, r"state\['x'\]\[0\] is int8 and has no scales; pass those that"),
    "None for scales": (codes_and_scales() | {"x.scale": [None]}, r"state\['x'\]\[0\] is int8 and has no scales"),
    "scales too few": (
        codes_and_scales() | {"x.scale": [np.zeros(1, np.float32)]},
        r"state\['x.scale'\]\[0\] is float32 of shape \(1,\) but state\['x'\]\[0\] has 300 elements; pass a dense float32 "
        r"tensor of shape \(2,\), a number for each 256",
    ),
    "scales of another dtype": (
        codes_and_scales() | {"x.scale": [np.zeros(2)]},
        r"\.scale'\]\[0\] is float64 of shape",
    ),
    "scales of a float state": (
        codes_and_scales() | {"x": [np.zeros(300, np.float32)]},
        r"state\['x'\]\[0\] is float32, which has no scales, but there is state\['x.scale'\]\[0\]; pass None there",
    ),
    "another key": (
        codes_and_scales() | {"y.scale": []},
        r"state has the keys .*; rule 'store' has the states \['x'\]",
    ),
    "fewer scales than tensors": (
        codes_and_scales() | {"x.scale": []},
        r"state\['x.scale'\] has 0 tensors but params has 1",
    ),
    "another integer": ({"x": [np.zeros(300, np.int16)]}, r"state\['x'\]\[0\] is .*int16; supported are float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    state, message = REFUSED[case]
    p, g = np.zeros(300, np.float32), np.ones(300, np.float32)
    with pytest.raises(ValueError, match=message):
        nos_ext.apply_rule(STORE, [p], [g], state, lr=1.0)


def test_only_states_are_quantized() -> None:
    state = codes_and_scales()
    with pytest.raises(ValueError, match=r"params\[0\] is .*int8; supported are float32"):
        nos_ext.apply_rule(STORE, [np.zeros(300, np.int8)], [np.zeros(300, np.float32)], state, lr=1.0)
    with pytest.raises(ValueError, match=r"grads\[0\] is int8; supported are float32"):
        nos_ext.apply_rule(STORE, [torch.zeros(300)], [torch.zeros(300, dtype=torch.int8)], state, lr=1.0)
    with pytest.raises(ValueError, match=r"a float64 parameter needs float64 everywhere"):
        nos_ext.apply_rule(STORE, [np.zeros(300)], [np.zeros(300)], state, lr=1.0)


def test_scales_may_not_be_shared() -> None:
    state = codes_and_scales()
    state = {"x": state["x"] + [np.zeros(300, np.int8)], "x.scale": state["x.scale"] * 2}
    p = [np.zeros(300, np.float32) for _ in range(2)]
    with pytest.raises(ValueError, match=r"state\['x.scale'\]\[0\] and state\['x.scale'\]\[1\] share memory"):
        nos_ext.apply_rule(STORE, p, [np.ones(300, np.float32)] * 2, state, lr=1.0)


def test_numbers_per_tensor_and_populations_are_not_quantized() -> None:
    rule = nos_ext.compile_rule("def k(p, g, k, *, lr):\n    k = 0.9 * k + norm(g)\n    return p - lr * g / k, k\n")
    assert nos_ext.init_state(rule, [np.zeros(3, np.float32)], state_dtype="int8")["k"][0].dtype == np.float32
    with pytest.raises(ValueError, match=r"state\['k'\]\[0\] is int8 but is one number per tensor; pass float32"):
        nos_ext.apply_rule(
            rule, [np.zeros(3, np.float32)], [np.ones(3, np.float32)], {"k": [np.zeros((), np.int8)]}, lr=1.0
        )
    state = {"x": [np.zeros((2, 256), np.int8)], "x.scale": [np.zeros(2, np.float32)]}
    with pytest.raises(ValueError, match=r"state\['x'\]\[0\] is int8, which a population cannot have; pass float32"):
        nos_ext.apply_population(
            [STORE] * 2, [np.zeros((2, 256), np.float32)], [np.ones((2, 256), np.float32)], state, lr=1.0
        )


def test_init_state() -> None:
    params = [torch.zeros(3, 100), torch.zeros(256).bfloat16(), torch.zeros(0)]
    state = nos_ext.init_state(ADAM, params, state_dtype="int8")
    assert [x.shape for x in state["v.scale"]] == [(2,), (1,), (0,)]
    half = nos_ext.init_state(ADAM, params, state_dtype=torch.bfloat16)
    assert {x.dtype for one in half.values() for x in one} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"state_dtype is 'int4'; pass 'bfloat16', 'int8', or None"):
        nos_ext.init_state(ADAM, params, state_dtype="int4")
    with pytest.raises(ValueError, match=r"NumPy, which has no bfloat16; pass 'int8'"):
        nos_ext.init_state(ADAM, [np.zeros(3, np.float32)], state_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"params\[0\] is float64, beside which states have to be float64"):
        nos_ext.init_state(ADAM, [torch.zeros(3).double()], state_dtype="bfloat16")
