"""What is the CUDA interpreter's alone: the length of its code, its blocks, and values that the registers do not hold. Its
bits are the conformance suite's."""

from __future__ import annotations

import numpy as np
import pytest

import nos_ext
from nos_ext.optim import library
from tests.backend.conformance.backends import CudaOnHost, Reference, outcome
from tests.backend.conformance.call import Call
from tests.backend.conformance.cases import F32, F64, lists_of, normal
from tests.backend.cuda import host
from tests.reference import codes as oracle


def compare(call: Call, **tuning: int) -> int:
    """How many blocks the kernel had, whose results have the reference's bits."""
    backend = CudaOnHost(tunings=(tuning,))
    found, expected = outcome(backend, call, 0), outcome(Reference(), call, 0)
    assert found is not None
    assert expected is not None
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    return backend.blocks


def test_device_code_is_short() -> None:
    """What lab counts and predictions of speed rest on."""
    for rule, most in ((library.powersign, 16), (library.adam, 21), (library.lion, 11), (library.sgd, 8)):
        code, overflow = host.listing(nos_ext.compile_rule(rule))
        assert len(code) <= most, code
        assert overflow == 0


def test_the_most_elements_of_a_block_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, for benches; no bit depends on it. The host's device has four blocks at once."""
    blocks = {}
    call = Call(
        [nos_ext.compile_rule("drop(g, 0.5) + m")], lists_of(np.random.default_rng(9), [100_000], [F32] * 3, normal)
    )
    for most in ("2048", "", "4096"):
        monkeypatch.setenv("NOS_CUDA_MOST_CHUNK", most)
        blocks[most] = compare(call)
    assert blocks == {"2048": 49, "": 7, "4096": 25}
    x = [np.ones(5, np.float32)]
    for wrong in ("0", "-2048", "2047", "2048k", " 2048", "2097152", "1e4", "99999999999999999999"):
        monkeypatch.setenv("NOS_CUDA_MOST_CHUNK", wrong)
        with pytest.raises(ValueError, match=f"NOS_CUDA_MOST_CHUNK is '{wrong}'; expected a multiple of 2048 up to"):
            host.apply(nos_ext.compile_rule("g"), x, [x[0].copy()], [], groups=[{"lr": 1}])
    assert x[0].tolist() == [1] * 5


def wide_rule(values: int) -> nos_ext.Program:
    """A rule that keeps `values` values alive at once."""
    lines = [f"    a{k} = exp(g * {0.01 * k}) + p" for k in range(values)]
    total = " + ".join(f"a{k} * a{values - 1 - k}" for k in range(values))
    return nos_ext.compile_rule("def f(p, g, *, lr):\n" + "\n".join(lines) + f"\n    return p - lr * ({total})")


@pytest.mark.parametrize(("values", "limit"), [(20, host.SHARED_LIMIT), (80, host.SHARED_LIMIT), (40, 40_000)])
def test_overflow_slots(values: int, limit: int) -> None:
    """Blocks get smaller when the overflow slots would not fit."""
    program = wide_rule(values)
    assert host.listing(program)[1] > 3
    for dtype in (F32, F64):
        lists = lists_of(np.random.default_rng(6), [5000], [dtype] * 2, normal)
        compare(Call([program], lists, [{"lr": 1e-3}]), shared_limit=limit)


def test_a_rule_too_big_for_the_device() -> None:
    """It is refused, and nothing is written."""
    lists = lists_of(np.random.default_rng(6), [50], [F32] * 2, normal)
    compare(
        Call([wide_rule(60)], lists, refused="temporaries beyond the registers.*move the tensors to the CPU"),
        shared_limit=16_000,
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_codes_are_those_of_the_documentation(dtype: str) -> None:
    """Whatever is cut and misaligned; a NaN takes its block, and so does what uint8 cannot hold."""
    make = np.random.default_rng(8)
    program = nos_ext.compile_rule("def store(p, g, x, *, lr):\n    return p, g\n")
    sizes = [1, 255, 256, 257, 511, 513, 5000, 0]
    grads = [normal(make, n) * np.float32(10.0 ** make.integers(-9, 3)) for n in sizes]
    if dtype == "uint8":
        grads = [abs(g) for g in grads]
    grads[3][256], grads[5][300], grads[6][4999] = np.inf, np.nan, -1.0
    grads[6][256:512] = 0
    wanted = [oracle.encode(g, dtype) for g in grads]
    for chunk, skip in ((0, 0), (32, 0), (256, 1), (1024, 3)):
        params, found = ([np.zeros(n + skip, d)[skip:] for n in sizes] for d in ("float32", dtype))
        scales = [np.zeros(-(-n // 256), np.float32) for n in sizes]
        host.apply(program, params, grads, [found], groups=[{"lr": 1.0}], scales=[scales], chunk=chunk)
        for codes, scale, (want_codes, want_scales) in zip(found, scales, wanted, strict=True):
            np.testing.assert_array_equal(codes, want_codes)
            np.testing.assert_array_equal(scale, want_scales)
