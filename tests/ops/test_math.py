"""Every element-wise op on fp32: error bounds, special values, storage formats, the same bits on every instruction set.

A stratified sample of what `bench/ulp.py` runs over all 2^32 inputs; the bounds are read from docs/numerics.md. Run as
a script it prints one digest per op, for the instruction set that NOS_ISA names.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import nos_ext
from bench import ulp
from tests.fresh import python

Floats = npt.NDArray[np.float32]
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and overflow are what is tested
ISAS = nos_ext.build_info()["cpu"]["isas"]
UNARY = [row["name"] for row in nos_ext.op_table() if row["domain"] == "any" and row["arity"] == 1]
BINARY = [row["name"] for row in nos_ext.op_table() if row["domain"] == "any" and row["arity"] == 2]
TERNARY = [row["name"] for row in nos_ext.op_table() if row["domain"] == "any" and row["arity"] == 3]


def bounds() -> dict[str, float]:
    """The proven bounds, from the generated table."""
    table = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8").split(ulp.BEGIN)[1].split(ulp.END)[0]
    return {op: float(bound) for op, bound in re.findall(r"^\| (\w+) \| [^|]* \| ([\d.]+) \|", table, re.M)}


def run(op: str, *operands: Any) -> Any:
    """op(*operands), element by element, in the engine; the result has the dtype of the first operand."""
    names = ("p", "g", "m")[: len(operands)]
    signature = "p, g, m" if len(operands) == 3 else "p, g"
    state = ", m" if len(operands) == 3 else ""
    program = nos_ext.compile_rule(f"def f({signature}, *, lr): return {op}({', '.join(names)}){state}")
    out = operands[0].clone() if isinstance(operands[0], torch.Tensor) else operands[0].copy()
    grad = operands[1] if len(operands) > 1 else operands[0]
    nos_ext.apply_rule(program, [out], [grad], {"m": [operands[2].copy()]} if len(operands) == 3 else {}, lr=0.0)
    return out


@functools.cache
def special() -> Floats:
    """Signed special values and the neighbours of every place where a formula changes."""
    places = [
        0.0,
        2.0**-149,
        2.0**-126,
        2.0**-24,
        2.0**-12,
        0.5,
        1.0,
        2.0,
        1.5,
        2.5,
        1 / 3,
        2 / 3,
        4 / 3,
        math.sqrt(0.5),
    ]
    places += [
        math.sqrt(2),
        0.625,
        9.02,
        9.1,
        88.0,
        88.7228394,
        89.0,
        87.3365479,
        103.2789,
        103.972084,
        104.0,
        3.4028235e38,
    ]
    places += [
        2.0**22,
        2.0**23,
        2.0**24,
        2.0**31,
        2.0**63,
        2.0**64,
        1e30,
        65504.0,
        65520.0,
        6.1035156e-05,
        5.9604645e-08,
    ]
    places += [(k + 0.5) * math.log(2) / s for k in range(-2, 13) for s in (1, 2)]
    around = [np.array(places, np.float32)]
    for direction in (np.float32(np.inf), np.float32(-np.inf)):
        for _ in range(3):
            around.append(np.nextafter(around[0] if len(around) % 3 == 1 else around[-1], direction, dtype=np.float32))
    x = np.unique(np.concatenate([*around, np.array([np.inf, np.nan], np.float32)]))
    return np.concatenate([x, -x, np.array([0.0, -0.0], np.float32)])


@functools.cache
def sample() -> Floats:
    """Every sign and exponent with random mantissas, ordinary magnitudes more densely, and the special values."""
    random = np.random.default_rng(20)
    mantissas = random.integers(0, 1 << 23, (512, 1500), np.uint32)
    mantissas[:, :4] = 0, 1, (1 << 23) - 1, 1 << 22
    strata = (np.arange(512, dtype=np.uint32)[:, None] << np.uint32(23) | mantissas).reshape(-1).view(np.float32)
    usual = [random.uniform(-r, r, 100_000).astype(np.float32) for r in (1, 4, 20, 105)]
    near_one = (1 + random.uniform(-0.5, 0.5, 100_000) ** 3).astype(np.float32)
    return np.concatenate([strata, *usual, near_one, special()])


@functools.cache
def pairs() -> tuple[Floats, Floats]:
    """Special values in all pairs, and random pairs of all and of like magnitudes."""
    random = np.random.default_rng(21)
    s = np.concatenate(
        [special()[::7], np.array([0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, np.inf, -np.inf, np.nan], np.float32)]
    )
    grid = np.meshgrid(s, s)
    bits = random.integers(0, 2**32, (2, 100_000), np.uint32).view(np.float32)
    like = random.normal(size=(2, 100_000)).astype(np.float32)
    a = np.concatenate([grid[0].reshape(-1), bits[0], like[0], like[0]])
    b = np.concatenate([grid[1].reshape(-1), bits[1], like[1], like[0]])
    return a, b


@functools.cache
def triples() -> tuple[Floats, Floats, Floats]:
    a, b = pairs()
    c = np.random.default_rng(22).permutation(b)
    corner = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -np.inf, np.inf, np.nan, 2.0**-149, 3.4e38], np.float32)
    cube = np.array(list(itertools.product(corner, repeat=3)), np.float32).T
    return tuple(np.concatenate([x, y]) for x, y in zip((a, b, c), cube, strict=True))  # type: ignore[return-value]


def same(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The same bits, or both NaN."""
    unsigned = f"u{got.dtype.itemsize}"
    return (got.view(unsigned) == want.view(unsigned)) | (np.isnan(got) & np.isnan(want))


def assert_same(got: npt.NDArray[Any], want: npt.NDArray[Any], *operands: npt.NDArray[Any]) -> None:
    assert got.dtype == want.dtype
    wrong = np.flatnonzero(~same(got, want))
    assert not len(wrong), [(*(x[i] for x in operands), got[i], want[i]) for i in wrong[:5]]


def assert_close(op: str, got: Floats, want: npt.NDArray[Any], *operands: Floats) -> None:
    errors, mismatch = ulp.ulp_errors(got, want)
    wrong = np.flatnonzero(mismatch | (errors > bounds()[op]))
    assert not len(wrong), [(*(x[i] for x in operands), got[i], want[i], errors[i]) for i in wrong[:5]]


# ---- bounds ---------------------------------------------------------------------------------------------------------


def test_the_proof_covers_every_unary_op() -> None:
    assert set(UNARY) | {"pow"} == set(ulp.REFERENCE) == set(bounds())
    assert bounds() == {op: bound for op, (bound, _) in ulp.REFERENCE.items()}


@pytest.mark.parametrize("op", UNARY)
def test_unary_bound(op: str) -> None:
    x = sample()
    with np.errstate(all="ignore"):
        want = ulp.REFERENCE[op][1](x.astype(np.float64))
    assert_close(op, run(op, x), want, x)


def test_pow_bound() -> None:
    drawn = ulp.pow_sample(300_000, seed=1)
    x, y = (np.concatenate([a, b]) for a, b in zip(drawn, pairs(), strict=True))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert_close("pow", run("pow", x, y), want, x, y)


def test_exact_powers_are_exact() -> None:
    base, exponent = (v.reshape(-1).astype(np.float32) for v in np.meshgrid(np.arange(-9, 10), np.arange(0, 8)))
    assert_same(
        run("pow", base, exponent), np.power(base.astype(np.float64), exponent).astype(np.float32), base, exponent
    )
    twos = np.full(278, 2, np.float32)
    exponents = np.arange(-149, 129, dtype=np.float32)
    assert_same(run("pow", twos, exponents), np.ldexp(1.0, exponents.astype(int)).astype(np.float32), exponents)


# ---- special values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted({*UNARY, *BINARY} - {"min", "max", "sign"}))
def test_special_values_are_those_of_torch(op: str) -> None:
    """NaN where torch gives NaN; the same infinities and zeros, sign included. (min, max, sign: own tests below.)"""
    operands = pairs() if op in BINARY else (special(),)
    function: Callable[..., Any] = getattr(torch, {"mul": "multiply", "div": "divide"}.get(op, op))
    # in double: torch's fp32 functions flush or overflow a little early on some instruction sets
    want = function(*(torch.from_numpy(x.astype(np.float64)) for x in operands)).to(torch.float32).numpy()
    got = run(op, *operands)
    assert (np.isnan(got) == np.isnan(want)).all()
    limit = (got == 0) | np.isinf(got)
    expected = (want == 0) | np.isinf(want)
    if op in ulp.REFERENCE and bounds()[op] > 0.5:
        # within the bound a result next to overflow or to 2^-150 may round to the other side
        tiny, huge = 2.0**-149, float(np.finfo(np.float32).max)
        border = (np.abs(want) <= tiny) | (np.abs(want) >= huge)
        wrong = np.flatnonzero((limit | expected) & ~same(got, want) & ~border)
        wrong = np.concatenate([wrong, np.flatnonzero(border & (np.signbit(got) != np.signbit(want)))])
    else:
        wrong = np.flatnonzero((limit | expected) & ~same(got, want))
    assert not len(wrong), [(*(x[i] for x in operands), got[i], want[i]) for i in wrong[:5]]


def ordered(a: Floats, b: Floats, smaller: bool) -> Floats:
    """IEEE 754-2019 minimum or maximum, element by element: a NaN wins, -0 < +0."""
    rank = [(x if x == x else math.nan, -1 if np.signbit(x) else 1) for x in (*a.tolist(), *b.tolist())]
    choose = min if smaller else max
    n = len(a)
    return np.array([x[0] if x[0] != x[0] else y[0] if y[0] != y[0] else choose(x, y)[0]
                     for x, y in zip(rank[:n], rank[n:], strict=True)], np.float32)  # fmt: skip


@pytest.mark.parametrize("op", ["min", "max"])
def test_min_and_max(op: str) -> None:
    a, b = pairs()
    want = ordered(a, b, op == "min")
    assert_same(run(op, a, b), want, a, b)
    assert_same(run(op, b, a), want, b, a)


def test_clip_is_min_of_max() -> None:
    a, low, high = triples()
    assert_same(run("clip", a, low, high), ordered(ordered(a, low, False), high, True), a, low, high)


def test_sign() -> None:
    x = np.array([3.0, 2.0**-149, np.inf, -2.0, -(2.0**-149), -np.inf, 0.0, -0.0, np.nan, -np.nan], np.float32)
    assert_same(run("sign", x), np.array([1, 1, 1, -1, -1, -1, 0, 0, np.nan, np.nan], np.float32), x)


@pytest.mark.parametrize("op", ["neg", "abs"])
def test_sign_bit_ops(op: str) -> None:
    x = sample()
    assert_same(run(op, x), -x if op == "neg" else np.abs(x), x)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        *[(name, getattr(np, long)) for name, long in zip(
            ("add", "sub", "mul", "div"), ("add", "subtract", "multiply", "divide"), strict=True)],
        ("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal),
        ("eq", np.equal), ("ne", np.not_equal),
    ],
)  # fmt: skip
def test_correctly_rounded_binary_ops(op: str, function: Callable[..., Any]) -> None:
    a, b = pairs()
    with np.errstate(all="ignore"):
        assert_same(run(op, a, b), function(a, b).astype(np.float32), a, b)


def test_where_counts_nan_as_true() -> None:
    a, b, c = triples()
    assert_same(run("where", a, b, c), np.where((a == 0), c, b), a, b, c)


def test_fma_rounds_once() -> None:
    x = np.float32(1 + 2.0**-12)
    got = run("fma", *(np.full(64, v, np.float32) for v in (x, x, -(1 + 2.0**-11))))
    assert (got == 2.0**-24).all()
    a, b, c = triples()
    with np.errstate(all="ignore"):
        want = a.astype(np.longdouble) * b + c
    errors, mismatch = ulp.ulp_errors(run("fma", a, b, c), want)
    assert not mismatch[np.abs(want) >= 2.0**-150].any()
    assert errors.max() <= 0.5 + 2.0**-20  # the reference is rounded to 64 bits


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("scalar", [0.0, -0.0, 1.0, -2.5, 3.0, math.inf, math.nan, 1e-30])
def test_scalar_operands_give_the_bits_of_tensor_operands(op: str, scalar: float) -> None:
    x = sample()[::31].copy()
    full = np.full_like(x, scalar)
    for text, operands in ((f"{op}(g, c)", (x, full)), (f"{op}(c, g)", (full, x))):
        out = np.empty_like(x)
        nos_ext.apply_rule(
            nos_ext.compile_rule(f"def f(p, g, *, lr, c=1.0): return {text}"), [out], [x], {}, lr=0.0, c=scalar
        )
        assert_same(out, run(op, *operands), x)


@pytest.mark.parametrize("op", UNARY)
def test_float64_is_computed_in_double(op: str) -> None:
    x = sample()[::17].astype(np.float64)
    with np.errstate(all="ignore"):
        want = ulp.REFERENCE[op][1](x)
    got = run(op, x)
    assert (np.isnan(got) == np.isnan(want)).all()
    ok = np.isnan(want) | (got == want) | (np.abs(got - want) <= 4 * np.spacing(np.abs(want)))
    assert ok.all(), x[~ok][:5]


# ---- storage formats ------------------------------------------------------------------------------------------------

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ASSIGN = "def f(p, g, *, lr): return g"


@pytest.mark.parametrize("name", HALVES)
def test_every_half_is_read_exactly(name: str) -> None:
    half = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(HALVES[name])
    out = torch.zeros(len(half))
    nos_ext.apply_rule(nos_ext.compile_rule(ASSIGN), [out], [half], {}, lr=0.0)
    assert_same(out.numpy(), half.float().numpy())


@pytest.mark.parametrize("name", HALVES)
def test_halves_round_to_nearest_even(name: str) -> None:
    half = torch.arange(0, 2**15, dtype=torch.int32).to(torch.int16).view(HALVES[name]).float().numpy()
    finite = half[np.isfinite(half)]
    middle = ((finite[:-1].astype(np.float64) + finite[1:]) / 2).astype(np.float32)  # exact
    top = np.float32(finite[-1] + (finite[-1] - finite[-2]) / 2) if name == "float16" else np.float32(3.3961776e38)
    edge = np.concatenate([finite, middle, [top]])
    near = [np.nextafter(edge, np.float32(d), dtype=np.float32) for d in (np.inf, -np.inf)]
    x = np.concatenate([edge, *near, -edge, sample()])
    out = torch.zeros(len(x), dtype=HALVES[name])
    nos_ext.apply_rule(nos_ext.compile_rule(ASSIGN), [out], [torch.from_numpy(x)], {}, lr=0.0)
    want = torch.from_numpy(x).to(HALVES[name])
    wrong = (out.view(torch.int16) != want.view(torch.int16)) & ~(out.isnan() & want.isnan())
    assert not wrong.any(), x[wrong.numpy()][:5]


# ---- the same bits everywhere ---------------------------------------------------------------------------------------


def digests() -> dict[str, str]:
    """One digest of the results of each op, NaN payloads aside."""

    def digest(*results: npt.NDArray[Any]) -> str:
        whole = hashlib.sha256()
        for result in results:
            whole.update(np.where(np.isnan(result), result.dtype.type(np.nan), result).tobytes())
        return whole.hexdigest()[:16]

    small = sample()[::3].copy()
    out = {op: digest(run(op, sample())) for op in UNARY}
    out |= {op: digest(run(op, *pairs())) for op in BINARY}
    out |= {op: digest(run(op, *triples())) for op in TERNARY}
    for dtype in HALVES.values():
        stored = torch.zeros(len(small), dtype=dtype)
        nos_ext.apply_rule(nos_ext.compile_rule(ASSIGN), [stored], [torch.from_numpy(small)], {}, lr=0.0)
        out[str(dtype)] = digest(stored.float().numpy())
    for draw in ("normal(1.0)", "drop(g, 0.3)"):
        drawn = np.zeros(100_003, np.float32)
        rule = nos_ext.compile_rule(f"def f(p, g, *, lr): return {draw}")
        nos_ext.apply_rule(rule, [drawn], [np.ones_like(drawn)], {}, lr=0.0, seed=7)
        out[draw] = digest(drawn)
    return out


@functools.cache
def digests_on(isa: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(nos_ext.__file__).parents[1]), str(ROOT)])
    environment = {**os.environ, "NOS_ISA": isa, "PYTHONPATH": path}
    done = python(f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')", env=environment)
    assert done.returncode == 0, done.stderr
    used, found = json.loads(done.stdout)
    assert used == isa
    return dict(found)


@pytest.mark.parametrize("isa", ISAS)
def test_same_bits_on_every_instruction_set(isa: str) -> None:
    assert digests_on(isa) == digests_on(ISAS[0])


if __name__ == "__main__":
    print(json.dumps([nos_ext.build_info()["cpu"]["isa"], digests()]))
