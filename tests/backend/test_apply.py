"""apply_rule on good input: dtypes, layouts, odd lists, scalars, and the same bits however the work is cut."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import nos_ext
from nos_ext import _C

POWERSIGN = nos_ext.compile_rule(
    "def powersign(p, g, m, *, lr, beta=0.9):\n"
    "    m = beta * m + (1 - beta) * g\n"
    "    return p - lr * exp(sign(g) * sign(m)) * g, m\n"
)
RANDOM = nos_ext.compile_rule(
    "def noisy(p, g, m, *, lr):\n    m = drop(g, 0.3) + normal(0.01) * m\n    return p - lr * drop(m, 0.1), m\n"
)
SIZES = [0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 255, 511, 512, 513, 1023, 4095, 4097, 8193]


@pytest.fixture(autouse=True)
def restore_tuning() -> Iterator[None]:
    yield
    _C.set_tuning()


def tensors(
    sizes: list[int], dtype: torch.dtype = torch.float32, offset: int = 0
) -> tuple[list[Any], list[Any], list[Any]]:
    """params, grads and one state with values that do not depend on `offset`, the misalignment in elements."""
    make = torch.Generator().manual_seed(1)
    lists: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for n in sizes:
        for tensors in lists:
            values = torch.randn(n, generator=make, dtype=torch.float64)
            memory = torch.empty(n + 8, dtype=dtype)
            memory[offset : offset + n] = values.to(dtype)
            tensors.append(memory[offset : offset + n])
    return lists


def run(program: nos_ext.Program, t: tuple[list[Any], list[Any], list[Any]], **kw: Any) -> list[torch.Tensor]:
    params, grads, m = t
    nos_ext.apply_rule(program, params, grads, {"m": m}, **{"lr": 0.1, "step": 3, "seed": 11, **kw})
    return [x.clone() for x in (*params, *m)]


def test_unknown_isa_is_refused() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "import nos_ext; nos_ext.build_info()"],
        env={**os.environ, "NOS_ISA": "avx9000"}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode != 0
    assert "NOS_ISA is 'avx9000'; this machine runs: baseline" in out.stderr


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_storage_rounds_to_nearest_even_once(dtype: torch.dtype) -> None:
    """fp32 arithmetic between one conversion in and one rounding out."""
    make = torch.Generator().manual_seed(2)
    p, g, m = (torch.randn(1000, generator=make).to(dtype) for _ in range(3))
    wide = [x.float() for x in (p, g, m)]
    nos_ext.apply_rule(POWERSIGN, [wide[0]], [wide[1]], {"m": [wide[2]]}, lr=0.1)
    nos_ext.apply_rule(POWERSIGN, [p], [g], {"m": [m]}, lr=0.1)
    assert torch.equal(p, wide[0].to(dtype))
    assert torch.equal(m, wide[2].to(dtype))


def test_mixed_dtypes_in_one_call() -> None:
    """Half parameters with fp32 state, fp32 parameters with half gradients, and float64 tensors, all in one list."""
    kinds = [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.bfloat16),
        (torch.float64, torch.float64, torch.float64),
    ]
    params, grads, m = ([torch.full((9,), 0.5, dtype=k[i]) for k in kinds] for i in range(3))
    nos_ext.apply_rule(POWERSIGN, params, grads, {"m": m}, lr=0.1)
    for p, s, k in zip(params, m, kinds, strict=True):
        assert p.dtype == k[0]
        assert s.dtype == k[2]
        expected = torch.tensor(0.5 - 0.1 * np.e * 0.5, dtype=torch.float64).to(k[0])
        assert torch.allclose(p, expected, rtol=2**-23 if k[0] == torch.float32 else 1e-15)


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "permuted", "ones"])
def test_dense_layouts(layout: str) -> None:
    """Any order of the dimensions, as long as the lists agree; strides of dimensions of size 1 do not matter."""
    make = torch.Generator().manual_seed(3)

    def tensor() -> torch.Tensor:
        x = torch.randn(2, 3, 4, 5, generator=make)
        match layout:
            case "transposed":
                return x.reshape(6, 20).T
            case "channels_last":
                return x.to(memory_format=torch.channels_last)
            case "permuted":
                return x.permute(2, 0, 3, 1)
        return x.as_strided((1, 2, 1, 60), (77, 60, 3, 1))

    p, g, m = tensor(), tensor(), tensor()
    flat = [x.detach().clone().contiguous() for x in (p, g, m)]
    nos_ext.apply_rule(POWERSIGN, [p], [g], {"m": [m]}, lr=0.1)
    nos_ext.apply_rule(POWERSIGN, [flat[0]], [flat[1]], {"m": [flat[2]]}, lr=0.1)
    assert torch.equal(p, flat[0])
    assert torch.equal(m, flat[2])


def test_odd_members_of_the_list() -> None:
    """Empty tensors, 0-d tensors, leaves that require grad and missing gradients, in any position."""
    leaf = torch.ones(3, requires_grad=True)
    params = [torch.zeros(0, 4), torch.tensor(1.0), torch.ones(2), leaf, torch.zeros(0)]
    grads = [torch.zeros(0, 4), torch.tensor(1.0), None, torch.ones(3), None]
    state = nos_ext.init_state(POWERSIGN, params)
    state["m"][2].fill_(7)
    nos_ext.apply_rule(POWERSIGN, params, grads, state, lr=0.1)
    step = float(np.float32(1) - np.float32(0.1) * np.float32(np.e))
    assert params[1].item() == pytest.approx(step, abs=2**-24)
    assert torch.equal(params[2], torch.ones(2))
    assert state["m"][2].tolist() == [7, 7]
    assert leaf.requires_grad
    assert leaf.tolist() == pytest.approx([step] * 3, abs=2**-24)
    nos_ext.apply_rule(POWERSIGN, [], [], {"m": []}, lr=0.1)


def test_seed_step_and_site_change_the_draws() -> None:
    base = run(RANDOM, tensors([1000]))
    assert not torch.equal(run(RANDOM, tensors([1000]), seed=12)[0], base[0])
    assert not torch.equal(run(RANDOM, tensors([1000]), step=4)[0], base[0])
    assert not torch.equal(run(RANDOM, tensors([1000]), tensor_index=1)[0], base[0])
    assert torch.equal(run(RANDOM, tensors([1000]))[0], base[0])


def test_maximize_and_grad_scale() -> None:
    params, grads, m = tensors([50])
    expected = run(POWERSIGN, ([params[0].clone()], [-grads[0]], [m[0].clone()]))
    assert all(map(torch.equal, run(POWERSIGN, tensors([50]), maximize=True), expected))
    scaled = run(POWERSIGN, ([params[0].clone()], [-1024 * grads[0]], [m[0].clone()]), maximize=True, grad_scale=1024.0)
    assert all(map(torch.equal, scaled, run(POWERSIGN, tensors([50]))))
    before = grads[0].clone()
    run(POWERSIGN, (params, grads, m), grad_scale=torch.tensor(3.0))
    assert torch.equal(grads[0], before)


def test_lr_and_hyperparameters_as_tensors() -> None:
    expected = run(POWERSIGN, tensors([10]), lr=0.25, beta=0.5)
    assert all(map(torch.equal, run(POWERSIGN, tensors([10]), lr=torch.tensor(0.25), beta=np.float64(0.5)), expected))


def test_numpy_arrays_equal_torch() -> None:
    expected = run(POWERSIGN, tensors([33]))
    params, grads, m = ([x.numpy().copy() for x in t] for t in tensors([33]))
    nos_ext.apply_rule(POWERSIGN.bytecode, params, grads, [m], lr=0.1, step=3)
    assert np.array_equal(params[0], expected[0].numpy())
    assert np.array_equal(m[0], expected[1].numpy())
    for dtype in (np.float64, np.float16):
        arrays = [np.full((2, 3), 0.5, dtype, order="F") for _ in range(3)]
        nos_ext.apply_rule(POWERSIGN, [arrays[0]], [arrays[1]], [[arrays[2]]], lr=0.1)
        assert arrays[0] == pytest.approx(
            np.full((2, 3), 0.5 * (1 - 0.1 * np.e)), rel=2.0**-11 if dtype == np.float16 else 1e-15
        )


def test_autograd_notices_the_write() -> None:
    """A backward pass through a value that apply_rule has overwritten fails, as after torch's in-place operations."""
    p = torch.ones(3, requires_grad=True)
    loss = (p * p).sum()
    nos_ext.apply_rule(nos_ext.compile_rule("g"), [p.detach()], [torch.ones(3)], {}, lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("text", "p", "m"),
    [
        ("def r(p, g, m, *, lr):\n    return m, p\n", 3.0, 1.0),  # swap
        ("def r(p, g, m, *, lr):\n    return g, g\n", 2.0, 2.0),
        ("def r(p, g, m, *, lr):\n    return p, 0.0 * lr\n", 1.0, 0.0),
        ("def r(p, g, m, *, lr):\n    x = p + m\n    return x, x\n", 4.0, 4.0),
        ("def r(p, g, m, *, lr):\n    a = p + g\n    b = m * a\n    return b, a - p\n", 9.0, 2.0),
        ("def r(p, g, m, *, lr):\n    return lr, p\n", 0.5, 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_outputs_that_move_between_slots(text: str, p: float, m: float, dtype: torch.dtype) -> None:
    program = nos_ext.compile_rule(text)
    params, grads, state = ([torch.full((1000,), v, dtype=dtype)] for v in (1.0, 2.0, 3.0))
    nos_ext.apply_rule(program, params, grads, [state], lr=0.5)
    assert params[0].eq(p).all()
    assert state[0].eq(m).all()


def repeated(n: int, window: int = 2**26) -> np.ndarray:
    """n float16 zeros in little memory: the same `window` bytes, mapped one time after the other, and then a rest.

    So an element of the repeated part has the value that was last written to any of those that it shares memory with.
    """
    whole = mmap.mmap(-1, 2 * n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    memory, fixed = os.memfd_create("window"), 0x10  # MAP_FIXED
    os.ftruncate(memory, window)
    for start in range(first, first + 2 * n - window + 1, window):
        flags = mmap.MAP_SHARED | fixed
        assert libc.mmap(start, window, mmap.PROT_READ | mmap.PROT_WRITE, flags, memory, 0) == start, ctypes.get_errno()
    os.close(memory)
    return np.frombuffer(whole, np.float16)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="maps memory in the way of Linux")
def test_more_than_2_to_31_elements() -> None:
    n = 2**31 + 5
    program = nos_ext.compile_rule("def r(p, g, *, lr):\n    return g + 1\n")
    p, g = repeated(n), np.zeros(n, np.float16)  # only the pages of g that are written to take memory
    g[-3:] = [1, 2, 3]
    nos_ext.apply_rule(program, [p], [g], {}, lr=0.1)
    assert p[-4:].tolist() == [1, 2, 3, 4]
    assert p[:2].tolist() == [1, 1]
