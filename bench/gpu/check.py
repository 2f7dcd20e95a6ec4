"""A short check on a device, small enough for compute-sanitizer: python -m bench.gpu.check [--device cpu]

Both tiers give the CPU's bits over dtypes, sizes and misalignments; a random op, several groups, a population,
states in int8. With
`--device cpu` the CPU is compared with itself: a dry run of this script.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

import nos_ext

from .ask import same

Lists = list[list[torch.Tensor]]
RULES = ("g * exp(sign(g) * sign(m))", "adam", "drop(g, 0.3) + normal(0.1) * m")
SIZES = (1, 5, 1023, 4100)


def lists(dtype: torch.dtype, offset: int) -> Lists:
    """p, g, and two states, on the CPU; views that start `offset` elements into their memory."""
    generator = torch.Generator().manual_seed(offset)
    return [
        [torch.randn(n + 8, generator=generator).abs().to(dtype)[offset : offset + n] for n in SIZES] for _ in range(4)
    ]


def moved(x: torch.Tensor, offset: int, device: str) -> torch.Tensor:
    """On the device, as far off alignment as on the CPU."""
    room = torch.zeros(x.numel() + 8, dtype=x.dtype, device=device)
    view = room[offset : offset + x.numel()]
    view.copy_(x)
    return view


@dataclass
class Found:
    compared: int = 0  # tensors
    tiers: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what has other bits than on the CPU

    def compare(self, what: str, cpu: Lists, gpu: Lists) -> None:
        for a, b in zip(itertools.chain(*cpu), itertools.chain(*gpu), strict=True):
            self.compared += 1
            if not same(a, b):
                self.wrong.append(what)

    def __str__(self) -> str:
        tiers = ", ".join(self.tiers)
        return f"{self.compared} tensors compared with the CPU, {len(self.wrong)} with other bits; tiers: {tiers}"


def compare(device: str) -> Found:
    """All of it, with the process's setting of the compiled tier left as it was."""
    found = Found()
    before = nos_ext.set_jit("never")
    try:
        found.tiers = ["never"] if nos_ext.build_info()["cuda"]["jit"].startswith("off") else ["never", "always"]
        for mode, text, dtype, offset in itertools.product(found.tiers, RULES, (torch.float32, torch.bfloat16), (0, 1)):
            nos_ext.set_jit(mode)
            single_rule(found, f"set_jit('{mode}'), {text!r}, {dtype}, offset {offset}", text, dtype, offset, device)
        population(found, device)
        for offset in (0, 1):
            quantized(found, offset, device)
    finally:
        nos_ext.set_jit(before)
    return found


def single_rule(found: Found, what: str, text: str, dtype: torch.dtype, offset: int, device: str) -> None:
    program = nos_ext.compile_rule(text)
    cpu = lists(dtype, offset)[: 2 + len(program.state_names)]
    gpu = [[moved(x, offset, device) for x in slot] for slot in cpu]
    for target in (cpu, gpu):
        for step in (1, 2):
            nos_ext.apply_rule(program, target[0], target[1], target[2:], lr=0.1, step=step, seed=7)
    found.compare(what, cpu, gpu)


def population(found: Found, device: str) -> None:
    """As a call, and on a device as captured steps too."""
    for captured in (False, True) if device == "cuda" else (False,):
        # the device's pow(beta, t) may differ in the last bit of a double
        programs = [nos_ext.compile_rule(t) for t in RULES if not captured or t != "adam"] * 2
        params, grads = ([torch.ones(len(programs), 1000) * x] for x in (1.0, 0.3))
        cpu = [params, grads, *nos_ext.init_population_state(programs, params)]
        gpu = [[x.to(device, copy=True) for x in slot] for slot in cpu]
        step = nos_ext.CapturedStep(programs, gpu[0], gpu[1], gpu[2:], lr=0.1, seed=3) if captured else None
        for number in (1, 2):
            nos_ext.apply_population(programs, cpu[0], cpu[1], cpu[2:], lr=0.1, seed=3, step=number)
            if step:
                step()
            else:
                nos_ext.apply_population(programs, gpu[0], gpu[1], gpu[2:], lr=0.1, seed=3, step=number)
        found.compare("a captured population" if captured else "a population", cpu, gpu)


def quantized(found: Found, offset: int, device: str) -> None:
    program = nos_ext.compile_rule("adam")
    params, grads = lists(torch.float32, offset)[:2]
    ours = nos_ext.init_state(program, params, state_dtype="int8")
    cpu = [params, grads, *ours.values()]
    gpu = [[moved(x, offset, device) for x in slot] for slot in cpu]
    theirs = dict(zip(ours, gpu[2:], strict=True))
    for target, state in ((cpu, ours), (gpu, theirs)):
        for step in (1, 2):
            nos_ext.apply_rule(
                program, target[0], target[1], state, lr=0.1, step=step, seed=7, stochastic_rounding="states"
            )
    found.compare(f"int8 states, offset {offset}", cpu, gpu)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(argv).device
    if device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; --device cpu makes a dry run", file=sys.stderr)
        return 1
    found = compare(device)
    for what in found.wrong:
        print(f"{what}: other bits than on the CPU", file=sys.stderr)
    print(found)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
