"""Outputs that no instruction computes, or that go into several slots, where slots are converted: with stochastic
rounding and in codes. Machine code has to give what the interpreter gives.

The gradient in half precision was once read as if it were float32, beyond its end.
"""

from __future__ import annotations

import os

import pytest

from tests.fresh import python

RULES = [
    "def r(p, g, a, *, lr):\n    return p - lr * g, g",
    "def r(p, g, a, *, lr):\n    return g, a + g",
    "def r(p, g, a, *, lr):\n    x = p - lr * g * a\n    return x, x",
    "def r(p, g, a, b, *, lr):\n    return a, a + g, a",
    "def r(p, g, a, b, *, lr):\n    return g, b, a",
    "def r(p, g, a, b, *, lr):\n    return p - lr * g, p, p",
    "def r(p, g, a, b, *, lr):\n    return p - lr * g, g, g",
    "def r(p, g, a, b, *, lr):\n    x = exp(-a * a)\n    return p - lr * x * b, a + g * x, a * x",
]


def many_states(count: int) -> str:
    """A rule with so many states that their scales and addresses take all registers, or more."""
    names = "abcdfhij"[:count]
    changed = ", ".join(f"0.9 * {x} + g * {y}" for x, y in zip(names, names[1:] + names[0], strict=True))
    return f"def r(p, g, {', '.join(names)}, *, lr):\n    return p - lr * ({' + '.join(names)}), {changed}"


RULES += [many_states(count) for count in (7, 8)]
CODE = """
import hashlib, itertools, sys
import torch, nos_ext
half = [torch.float32, torch.bfloat16, torch.float16]
for text in sys.argv[1].split(";"):
    rule = nos_ext.compile_rule(text)
    out = hashlib.sha256()
    for dp, dg, kind, rounding in itertools.product(half, half, (None, "bfloat16", "int8"), (False, "states", True)):
        make = torch.Generator().manual_seed(0)
        p, g = (torch.randn(700, generator=make).to(d) for d in (dp, dg))
        state = nos_ext.init_state(rule, [p], state_dtype=kind)
        for step in (1, 2):
            nos_ext.apply_rule(rule, [p], [g], state, lr=0.1, step=step, seed=5, stochastic_rounding=rounding)
        for x in [p, *[tensors[0] for tensors in state.values()]]:
            out.update(x.view(torch.uint8).numpy().tobytes())
    print(out.hexdigest())
"""


def digests(**env: str) -> list[str]:
    done = python(CODE, ";".join(RULES), env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_machine_code_gives_the_interpreter_s_bits(isa: str) -> None:
    import nos_ext

    if isa not in nos_ext.build_info()["cpu"]["isas"]:
        pytest.skip(f"this machine has no {isa}")
    expected = digests(NOS_NATIVE="0", NOS_ISA=isa)
    for text, want, found in zip(RULES, expected, digests(NOS_ISA=isa), strict=True):
        assert want == found, text
